//! Whatever is asked: no text of a request reaches SQL's text, and nothing panics.

use proptest::prelude::*;

use super::*;
use crate::sandbox::rest::query::Query;
use crate::sandbox::rest::read;
use crate::sandbox::rest::sql;

/// In every value, so that it is found if it got into a statement.
const NEEDLE: &str = "zqx";

/// A failure is printed whole; nothing is written into the sources.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// A query whose values are still to be filled in, for `{}`.
fn shape() -> impl Strategy<Value = String> {
    let field =
        prop_oneof![Just("name"), Just("status"), Just("payload->>{}"), Just("payload->{}->>0"),];
    let leaf = (
        field,
        prop_oneof![Just(""), Just("not.")],
        prop_oneof![
            Just("eq.{}"),
            Just("neq.{}"),
            Just("gt.{}"),
            Just("lte.{}"),
            Just("like.{}"),
            Just("ilike.{}"),
            Just("in.({},{})"),
            Just("is.null"),
        ],
    )
        .prop_map(|(field, not, operation)| format!("{field}.{not}{operation}"));
    let tree = leaf.prop_recursive(4, 24, 4, |inner| {
        (prop_oneof![Just("and"), Just("or"), Just("not.or")], prop::collection::vec(inner, 1..4))
            .prop_map(|(name, members)| format!("{name}({})", members.join(",")))
    });
    let select = prop_oneof![Just("*"), Just("n,{}:name"), Just("x:payload->{}::text,name")];
    let order = prop_oneof![Just("n.desc"), Just("payload->>{}.asc,name.nullsfirst")];
    (prop::collection::vec(tree, 1..4), select, order).prop_map(|(trees, select, order)| {
        format!("select={select}&order={order}&and=({})", trees.join(","))
    })
}

/// Any text with the needle, quoted as the grammar wants it.
fn value() -> impl Strategy<Value = String> {
    let any = prop_oneof![
        any::<String>(),
        "[a-z\"'\\\\;(),.*%_ -]{0,12}",
        Just("') OR 1=1; DROP TABLE items; --".to_owned()),
        Just("\" IS NULL OR \"".to_owned()),
    ];
    any.prop_map(|text| {
        let text = format!("{NEEDLE}{text}").replace('\0', "");
        encoded(&format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
    })
}

fn filled(shape: &str, values: &[String]) -> String {
    let mut parts = shape.split("{}");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.zip(values.iter().cycle()).fold(first, |text, (part, value)| text + value + part)
}

fn statement(query: &str) -> (String, usize) {
    let query = Query::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    let selection = read::selection(&items::ITEMS, &query, &me(), Vec::new()).unwrap();
    let sql = sql::select(&selection, query.limit, query.offset);
    (sql.text().to_owned(), sql.values().count())
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn the_text_of_a_statement_depends_on_the_shape_only(
        shape in shape(),
        first in prop::collection::vec(value(), 8),
        second in prop::collection::vec(value(), 8),
    ) {
        let (text, parameters) = statement(&filled(&shape, &first));
        prop_assert!(!text.contains(NEEDLE), "{}", text);
        prop_assert_eq!(text.matches('?').count(), parameters);
        prop_assert_eq!((text, parameters), statement(&filled(&shape, &second)));
    }

    #[test]
    fn no_text_reaches_the_statement_of_what_does_parse(
        query in "(select|order|and|or|name|n|payload|columns)=[a-z0-9\"'\\\\;(),.*:>&= -]{0,40}",
    ) {
        if let Ok(query) = Query::parse(&query)
            && let Ok(selection) = read::selection(&items::ITEMS, &query, &me(), Vec::new())
        {
            let sql = sql::select(&selection, query.limit, query.offset);
            let known = |word: &str| {
                items::ITEMS.columns.iter().any(|column| column.name == word)
                    || word.chars().all(|char| char.is_ascii_uppercase())
                    || ["items", "rowid", "value", "json_each", "pg_like", "pg_ilike", "pg_json",
                        "pg_json_text", "1", "0"].contains(&word)
            };
            let words = sql.text().split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
            for word in words.filter(|word| !word.is_empty()) {
                prop_assert!(known(word), "{} in {}", word, sql.text());
            }
        }
    }
}

#[test]
fn nothing_panics_and_sqlite_understands_every_statement() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let server = runtime.block_on(Server::new());
    let rows = json!([{"name": "a", "payload": {"k": [1, "x"]}}, {"name": "b", "payload": 2}]);
    assert_eq!(runtime.block_on(server.post("items", "", &rows)).status, 201);
    let method = prop_oneof![
        Just(Method::GET),
        Just(Method::HEAD),
        Just(Method::POST),
        Just(Method::PATCH),
        Just(Method::DELETE),
        Just(Method::PUT),
    ];
    let query = prop_oneof![
        (shape(), prop::collection::vec(value(), 8))
            .prop_map(|(shape, values)| filled(&shape, &values)),
        "[a-z]{1,6}=[ -~]{0,30}(&[a-z]{1,6}=[ -~]{0,30}){0,3}",
        any::<String>(),
    ];
    let path = prop_oneof![Just("items".to_owned()), Just("rpc/list".to_owned()), any::<String>()];
    let body = prop_oneof![
        Just("{}".to_owned()),
        Just(r#"{"p_status":"queued"}"#.to_owned()),
        r#"\{"(name|n|payload|id|x)":[ -~]{0,20}\}"#,
        any::<String>(),
    ];
    let header = (
        prop_oneof![Just("prefer"), Just("accept"), Just("range"), Just("content-type")],
        prop_oneof!["[ -~]{0,20}".boxed(), Just("return=representation".to_owned()).boxed()],
    );
    let strategy = (method, path, query, body, header);
    proptest!(config(400), |((method, path, query, body, header) in strategy)| {
        let request = RestRequest {
            method,
            path,
            query,
            headers: [(
                HeaderName::from_static(header.0),
                HeaderValue::from_str(&header.1).unwrap(),
            )].into_iter().collect(),
            body: body.into_bytes(),
        };
        let answer = runtime.block_on(handle(&server.store, &me(), request.clone()));
        prop_assert!(!answer.status().is_server_error(), "{:?} {:?}", request, answer);
    });
}
