//! POST, PATCH, DELETE and functions.

use super::*;

const REPRESENTATION: &str = "return=representation";
const OBJECT: (&str, &str) = ("accept", "application/vnd.pgrst.object+json");

async fn names(server: &Server) -> Vec<Value> {
    server.get("items?select=name&order=name").await.column("name")
}

#[tokio::test]
async fn inserts_answer_as_asked() {
    let server = Server::new().await;
    let minimal = server.post("items", "return=minimal", &json!({"name": "one"})).await;
    assert_eq!((minimal.status.as_u16(), &minimal.body), (201, &Value::Null));
    assert_eq!(minimal.header("content-range"), "*/*");
    assert_eq!(minimal.header("preference-applied"), "return=minimal");
    assert!(minimal.headers.get("content-type").is_none());

    let row = json!({"name": "two", "n": "5", "payload": {"a": [1, 2.5, null], "s": "x\"y"}});
    let full = server.post("items", REPRESENTATION, &row).await;
    assert_eq!(full.status, 201);
    let full = &full.body[0];
    assert_eq!(
        (&full["n"], &full["payload"], &full["status"]),
        (&json!(5), &row["payload"], &json!("queued"))
    );
    assert_eq!(full["owner"], USER);
    uuid::Uuid::parse_str(full["id"].as_str().unwrap()).unwrap();
    let created = full["created_at"].as_str().unwrap();
    assert!(created.ends_with("+00:00") && created.parse::<jiff::Timestamp>().is_ok(), "{created}");

    let id = "00000000-0000-4000-8000-000000000001";
    let located =
        server.post("items", "return=headers-only", &json!({"id": id, "name": "x"})).await;
    assert_eq!((located.status.as_u16(), &located.body), (201, &Value::Null));
    assert_eq!(located.header("location"), format!("/items?id=eq.{}", encoded(id)));

    let bulk = json!([{"name": "c"}, {"name": "b"}, {"name": "a"}]);
    let bulk = server.post("items?select=name", "return=representation,count=exact", &bulk).await;
    assert_eq!(bulk.body, json!([{"name": "c"}, {"name": "b"}, {"name": "a"}]));
    assert_eq!(bulk.header("content-range"), "*/3");
    let none = server.post("items", REPRESENTATION, &json!([])).await;
    assert_eq!((none.status.as_u16(), none.body), (201, json!([])));
}

#[tokio::test]
async fn columns_pick_what_is_inserted() {
    let server = Server::new().await;
    let rows = json!([{"name": "a", "status": "s", "junk": 1}, {"name": "b"}]);
    let target = "items?columns=%22name%22,status&select=status";
    let made = server.post(target, "return=representation,missing=default", &rows).await;
    assert_eq!(made.column("status"), ["s", "queued"]);
    let rows = json!([{"name": "c"}]);
    // Without the preference it is NULL, and the column takes none.
    assert_eq!(server.post(target, "", &rows).await.error(), (400, "23502"));
    let unknown = server.post("items?columns=name,absent", "missing=default", &rows).await;
    assert_eq!(unknown.error(), (400, "PGRST204"));
}

#[tokio::test]
async fn a_refused_write_leaves_nothing() {
    let server = Server::new().await;
    server.post("items", "", &json!({"name": "one"})).await;
    let nobody = "00000000-0000-4000-8000-000000000000";
    for (body, status, code) in [
        (json!({"name": "one"}), 409, "23505"),
        (json!([{"name": "new"}, {"name": "one"}]), 409, "23505"),
        (json!({"name": "new", "parent": nobody}), 409, "23503"),
        (json!({"name": "bad"}), 400, "23514"),
        (json!({"name": null}), 400, "23502"),
        (json!({"n": 1}), 400, "23502"),
        (json!({"name": "new", "absent": 1}), 400, "PGRST204"),
        (json!({"name": "new", "n": 1.5}), 400, "22P02"),
        (json!({"name": "new", "id": "x"}), 400, "22P02"),
        (json!({"name": "new", "payload": "\u{0}"}), 400, "22P05"),
        (json!({"name": "new", "owner": OTHER_USER}), 403, "42501"),
        (json!([{"name": "new"}, {"n": 1}]), 400, "PGRST102"),
        (json!([1]), 400, "PGRST102"),
        (json!("x"), 400, "PGRST102"),
    ] {
        let answer = server.post("items", REPRESENTATION, &body).await;
        assert_eq!(answer.error(), (status, code), "{body}");
        assert_eq!(names(&server).await, ["one"], "{body}");
    }
    let duplicate = server.post("items", "", &json!({"name": "one"})).await;
    assert_eq!(duplicate.body["details"], "Key (name) already exists.");
    for text in ["", "{", "nonsense"] {
        let answer = server.call(&me(), Method::POST, "items", &[], text).await;
        assert_eq!(answer.error(), (400, "PGRST102"), "{text}");
    }
    let filtered = server.post("items?n=eq.1", "", &json!({"name": "new"})).await;
    assert_eq!(filtered.error(), (400, "PGRST100"));
    assert_eq!(names(&server).await, ["one"]);
}

#[tokio::test]
async fn upserts_merge_or_ignore() {
    let server = Server::new().await;
    let one = json!({"name": "one", "n": 1});
    let merge = "return=representation,resolution=merge-duplicates";
    let ignore = "return=representation,resolution=ignore-duplicates";
    let by_name = "items?on_conflict=name&select=name,n,status";
    let made = server.post(by_name, merge, &one).await;
    assert_eq!((made.status.as_u16(), &made.body[0]["n"]), (201, &json!(1)));
    let merged = server.post(by_name, merge, &json!({"name": "one", "n": 77})).await;
    assert_eq!(merged.status, 200);
    assert_eq!(merged.body, json!([{"name": "one", "n": 77, "status": "queued"}]));
    let both = &json!([{"name": "one", "n": 3}, {"name": "two", "n": 4}]);
    let both = server.post(by_name, merge, both).await;
    assert_eq!((both.status.as_u16(), both.column("n")), (201, vec![json!(3), json!(4)]));
    let ignored = server.post(by_name, ignore, &json!({"name": "one", "n": 78})).await;
    assert_eq!((ignored.status.as_u16(), ignored.body), (200, json!([])));
    let mixed = server.post(by_name, ignore, &json!([{"name": "one"}, {"name": "three"}])).await;
    assert_eq!((mixed.status.as_u16(), mixed.column("name")), (201, vec![json!("three")]));
    // The default is the primary key, and then the name is in the way.
    assert_eq!(server.post("items", merge, &one).await.error(), (409, "23505"));
    assert_eq!(server.post("items?on_conflict=n", merge, &one).await.error(), (400, "42P10"));
    assert_eq!(server.post("items?on_conflict=name", "", &one).await.error(), (400, "PGRST100"));

    // Another user's row is not merged into, and nothing tells more than that.
    let other = gateway(STRANGER, OTHER_TEAM, OTHER_USER);
    let headers = [("prefer", merge)];
    let stolen = server.call(&other, Method::POST, by_name, &headers, &one.to_string()).await;
    assert_eq!(stolen.error(), (403, "42501"));
    assert_eq!(server.get("items?name=eq.one&select=n").await.column("n"), [3]);
}

#[tokio::test]
async fn updates_answer_as_asked() {
    let server = Server::new().await;
    let rows = json!([{"name": "a", "n": 2}, {"name": "b", "n": 1}, {"name": "c", "n": 0}]);
    server.post("items", "", &rows).await;
    let done = server.patch("items?n=lt.2", "count=exact", &json!({"status": "s"})).await;
    assert_eq!((done.status.as_u16(), &done.body), (204, &Value::Null));
    assert_eq!(done.header("content-range"), "0-1/2");
    let target = "items?status=eq.s&select=name&order=n";
    let done = server.patch(target, REPRESENTATION, &json!({"status": "t"})).await;
    assert_eq!((done.status.as_u16(), done.column("name")), (200, vec![json!("c"), json!("b")]));
    assert_eq!(done.header("content-range"), "0-1/*");
    let again = server.patch(target, REPRESENTATION, &json!({"status": "t"})).await;
    assert_eq!((again.status.as_u16(), &again.body), (200, &json!([])));
    assert_eq!(again.header("content-range"), "*/*");
    let empty = server.patch("items?name=eq.a", REPRESENTATION, &json!({})).await;
    assert_eq!((empty.status.as_u16(), empty.body), (200, json!([])));

    let everything = server.patch("items", "", &json!({"status": "x"})).await;
    assert_eq!(everything.error(), (400, "21000"));
    let most = server.patch("items?n=gte.0", "max-affected=2", &json!({"status": "x"})).await;
    assert_eq!(most.error(), (400, "PGRST124"));
    let array = server.patch("items?n=eq.0", "", &json!([{"status": "x"}])).await;
    assert_eq!(array.error(), (400, "PGRST102"));
    let unknown = server.patch("items?n=eq.0", "", &json!({"absent": 1})).await;
    assert_eq!(unknown.error(), (400, "PGRST204"));
    assert_eq!(server.get("items?status=eq.x").await.body, json!([]));
}

#[tokio::test]
async fn a_write_that_is_not_one_object_is_rolled_back() {
    let server = Server::new().await;
    server.post("items", "", &json!([{"name": "a"}, {"name": "b"}])).await;
    let headers = [OBJECT, ("prefer", REPRESENTATION)];
    for (method, target, rows) in [
        (Method::PATCH, "items?name=eq.absent", 0),
        (Method::PATCH, "items?name=in.(a,b)", 2),
        (Method::DELETE, "items?name=in.(a,b)", 2),
    ] {
        let answer = server.call(&me(), method, target, &headers, r#"{"status":"x"}"#).await;
        assert_eq!(answer.error(), (406, "PGRST116"), "{target}");
        assert_eq!(answer.body["details"], format!("The result contains {rows} rows"));
    }
    let rows = server.get("items?select=status").await;
    assert_eq!(rows.column("status"), ["queued", "queued"]);
    let body = r#"{"status":"x"}"#;
    let one =
        server.call(&me(), Method::PATCH, "items?name=eq.a&select=name", &headers, body).await;
    assert_eq!((one.status.as_u16(), one.body), (200, json!({"name": "a"})));
}

#[tokio::test]
async fn deletes_show_what_went() {
    let server = Server::new().await;
    let rows = json!([{"name": "a", "n": 1}, {"name": "b", "n": 2}, {"name": "c", "n": 3}]);
    server.post("items", "", &rows).await;
    let gone = server.delete("items?n=lt.3&select=name&order=n.desc", REPRESENTATION).await;
    assert_eq!((gone.status.as_u16(), gone.column("name")), (200, vec![json!("b"), json!("a")]));
    assert_eq!(server.delete("items", "").await.error(), (400, "21000"));
    let gone = server.delete("items?name=eq.c", "").await;
    assert_eq!((gone.status.as_u16(), gone.body), (204, Value::Null));
    assert!(names(&server).await.is_empty());
}

#[tokio::test]
async fn functions_answer_by_what_they_return() {
    let server = Server::new().await;
    let rows = json!([{"name": "a", "n": 1}, {"name": "b", "n": 2}]);
    server.post("items", "", &rows).await;
    let sum = server.post("rpc/add", "", &json!({"a": 2, "b": 40})).await;
    assert_eq!((sum.status.as_u16(), sum.body), (200, json!(42)));
    let list = json!({"p_status": "queued"});
    let listed = server.post("rpc/list?select=name,n&order=n.desc&limit=1", "", &list).await;
    assert_eq!((listed.status.as_u16(), listed.body), (200, json!([{"name": "b", "n": 2}])));
    let other = gateway(STRANGER, OTHER_TEAM, OTHER_USER);
    let hidden = server.call(&other, Method::POST, "rpc/list", &[], &list.to_string()).await;
    assert_eq!(hidden.body, json!([]));
    let failed = server.post("rpc/fail", "", &json!({})).await;
    assert_eq!(failed.error(), (400, "P0001"));
    assert_eq!(
        (&failed.body["details"], &failed.body["hint"]),
        (&json!("the detail"), &json!("the hint"))
    );
    assert_eq!(names(&server).await, ["a", "b"]);
    let nothing = server.call(&me(), Method::POST, "rpc/nothing", &[], "").await;
    assert_eq!((nothing.status.as_u16(), nothing.body), (204, Value::Null));
    assert_eq!(server.get("items?status=eq.touched").await.column("n").len(), 2);
    for (target, body, status, code) in [
        ("rpc/absent", json!({"x": 1}), 404, "PGRST202"),
        ("rpc/add", json!({"x": 1}), 404, "PGRST202"),
        ("rpc/add", json!({"a": 1}), 404, "PGRST202"),
        ("rpc/add", json!({"a": 1, "b": 2, "c": 3}), 404, "PGRST202"),
        ("rpc/add", json!({"a": "x", "b": 2}), 400, "22P02"),
        ("rpc/add", json!([1]), 400, "PGRST102"),
        ("rpc/add?n=eq.1", json!({"a": 1, "b": 2}), 400, "PGRST100"),
    ] {
        let answer = server.post(target, "", &body).await;
        assert_eq!(answer.error(), (status, code), "{target} {body}");
    }
    let anonymous = server.call(&Caller::Anonymous, Method::POST, "rpc/nothing", &[], "").await;
    assert_eq!(anonymous.error(), (401, "42501"));
}
