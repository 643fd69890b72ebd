//! Reads: select lists, filters, order, windows, counts, and what is refused.

use super::*;
use crate::sandbox::rest::RestError;

/// Names with every character that quoting is about, `n` from 100 on.
const ODD: [&str; 10] =
    ["a,b", "c)d", "(e", "quote\"q", "back\\slash", "dot.dot", "sp ace", "pl+us", "pct%25", "ünï"];

async fn with_items() -> Server {
    let server = Server::new().await;
    let odd: Vec<Value> = ODD
        .iter()
        .zip(100..)
        .map(|(name, n)| json!({"name": name, "n": n, "status": "odd"}))
        .collect();
    assert_eq!(server.post("items", "", &json!(odd)).await.status, 201);
    let others = json!([
        {"name": "one", "n": 1, "flag": true, "created_at": "2025-11-03T10:32:55.123456+01:00",
         "payload": {"a": [1, {"b": "x"}], "t": "10", "b": true, "z": null}},
        {"name": "two", "n": null, "flag": null, "created_at": "2025-11-03T09:32:55Z",
         "payload": null},
        {"name": "Three", "n": 3, "flag": false, "created_at": "2025-11-03T09:32:56Z",
         "payload": {"t": "9"}},
    ]);
    assert_eq!(server.post("items", "", &others).await.status, 201);
    server
}

#[tokio::test]
async fn filters_pick_what_they_do_in_postgres() {
    let server = with_items().await;
    let plus = encoded("2025-11-03T09:32:55.123456+00:00");
    for (query, expected) in [
        ("n=gte.100&n=lt.103", json!([100, 101, 102])),
        ("n=gt.107&n=lte.109", json!([108, 109])),
        ("n=in.(100,103,99999)", json!([100, 103])),
        ("n=in.()", json!([])),
        ("n=not.in.(1)&status=eq.queued", json!([3])),
        ("n=neq.1&status=neq.odd", json!([3])),
        ("n=is.null", json!([null])),
        ("n=is.NULL", json!([null])),
        ("n=not.is.null&status=eq.queued", json!([1, 3])),
        ("n=is.not_null&status=eq.queued", json!([1, 3])),
        ("flag=is.true", json!([1])),
        ("flag=is.false", json!([3])),
        ("flag=is.unknown&status=eq.queued", json!([null])),
        ("flag=eq.t", json!([1])),
        ("flag=not.is.true&status=eq.queued", json!([3, null])),
        ("name=like.t*", json!([null])),
        ("name=like.t%25", json!([null])),
        ("name=ilike.T*", json!([3, null])),
        ("name=ilike.%C3%9CN%C3%8F", json!([109])),
        ("name=like._ne", json!([1])),
        ("or=(n.eq.1,n.eq.3)", json!([1, 3])),
        ("or=(name.eq.\"a,b\",n.eq.1)", json!([1, 100])),
        ("or=(name.eq.\"quote\\\"q\",name.eq.\"back\\\\slash\")", json!([103, 104])),
        ("not.or=(n.gt.3,n.eq.1)", json!([3])),
        ("and=(n.gt.1,n.lt.100)", json!([3])),
        ("or=(n.eq.1,and(n.gt.100,not.or(n.gt.101)))", json!([1, 101])),
        ("or=(n.in.(1,3),name.in.(\"a,b\"))", json!([1, 3, 100])),
        (
            "or=(not.and(n.lt.109,n.gt.0),n.not.in.(100,101,102,103,104,105,106,107,108))",
            json!([1, 3, 109]),
        ),
        ("or=(n.is.null,n.eq.1)", json!([1, null])),
        ("payload->>t=eq.10", json!([1])),
        ("payload->a->1->>b=eq.x", json!([1])),
        ("payload->a->-1->>b=eq.x", json!([1])),
        ("payload->>b=eq.true", json!([1])),
        ("payload->>z=is.null&payload=not.is.null", json!([1, 3])),
        ("payload->t=not.is.null", json!([1, 3])),
        ("or=(payload->>t.eq.9)", json!([3])),
        ("\"payload\"->>\"t\"=eq.9", json!([3])),
        (&format!("created_at=eq.{plus}"), json!([1])),
        ("created_at=eq.2025-11-03T09:32:55.123456Z", json!([1])),
        ("created_at=lt.2025-11-03T09:32:55.5Z", json!([1, null])),
        (
            &format!("or=(created_at.gt.{plus},and(created_at.eq.{plus},n.gt.0))&n=lt.100"),
            json!([1, 3]),
        ),
        ("n=eq.%2B3", json!([3])),
    ] {
        let answer = server.get(&format!("items?select=n&order=n&{query}")).await;
        assert_eq!(json!(answer.column("n")), expected, "{query}");
    }
}

#[tokio::test]
async fn odd_characters_come_back_alive() {
    let server = with_items().await;
    for name in ODD {
        let answer = server.get(&format!("items?select=name&name=eq.{}", encoded(name))).await;
        assert_eq!(answer.column("name"), [name]);
    }
    let quoted = |name: &&str| format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    let list: Vec<String> = ODD.iter().map(quoted).collect();
    let list = encoded(&format!("({})", list.join(",")));
    let answer = server.get(&format!("items?select=name&order=n&name=in.{list}")).await;
    assert_eq!(answer.column("name"), ODD);
    // As supabase-js does it: quotes only for `,()`, escapes nothing.
    let answer = server.get("items?select=n&order=n&name=in.(%22a,b%22,dot.dot,sp%20ace)").await;
    assert_eq!(answer.column("n"), [100, 105, 106]);
    // In a query string a plus is a blank.
    assert_eq!(server.get("items?select=n&name=eq.sp+ace").await.column("n"), [106]);
    assert_eq!(server.get("items?select=n&name=eq.pl%2Bus").await.column("n"), [107]);
    // A top-level value is raw: its quotes belong to it.
    assert_eq!(server.get("items?select=n&name=eq.%22one%22").await.column("n"), [0; 0]);
}

#[tokio::test]
async fn select_lists_shape_the_rows() {
    let server = with_items().await;
    for (select, expected) in [
        ("n,name", json!({"n": 1, "name": "one"})),
        ("who:name,number:n::text", json!({"who": "one", "number": "1"})),
        ("created_at", json!({"created_at": "2025-11-03T09:32:55.123456+00:00"})),
        ("created_at::text", json!({"created_at": "2025-11-03 09:32:55.123456+00"})),
        ("flag,f:flag::text", json!({"flag": true, "f": "true"})),
        ("payload->t,payload->>b", json!({"t": "10", "b": "true"})),
        ("payload->a->1->b,x:payload->a->0", json!({"b": "x", "x": 1})),
        ("payload->a->0::text", json!({"a": "1"})),
        ("payload->>absent", json!({"absent": null})),
        (" n , name ", json!({"n": 1, "name": "one"})),
        ("\"n\"", json!({"n": 1})),
    ] {
        let answer = server.get(&format!("items?name=eq.one&select={}", encoded(select))).await;
        assert_eq!(answer.body, json!([expected]), "{select}");
    }
    let all = server.get("items?name=eq.one&select=*").await;
    let names: Vec<&String> = all.body[0].as_object().unwrap().keys().collect();
    let defined: Vec<&str> = items::ITEMS.columns.iter().map(|column| column.name).collect();
    assert_eq!(names, defined);
    assert_eq!(server.get("items?name=eq.one").await.body, all.body);
}

#[tokio::test]
async fn order_puts_nulls_where_postgres_does() {
    let server = with_items().await;
    for (order, expected) in [
        ("n", json!([1, 3, null])),
        ("n.asc", json!([1, 3, null])),
        ("n.desc", json!([null, 3, 1])),
        ("n.asc.nullsfirst", json!([null, 1, 3])),
        ("n.desc.nullslast", json!([3, 1, null])),
        ("n.nullsfirst", json!([null, 1, 3])),
        ("status,created_at.desc", json!([3, 1, null])),
        ("payload->>t.desc.nullslast", json!([3, 1, null])),
    ] {
        let target = format!("items?status=eq.queued&select=n&order={}", encoded(order));
        assert_eq!(json!(server.get(&target).await.column("n")), expected, "{order}");
    }
}

#[tokio::test]
async fn windows_counts_and_their_statuses() {
    let server = with_items().await;
    let odd = "items?status=eq.odd&select=n&order=n";
    for (window, range, prefer, status, content_range, shown) in [
        ("", "", "", 200, "0-9/*", 10),
        ("&limit=2", "", "", 200, "0-1/*", 2),
        ("&offset=2&limit=3", "", "", 200, "2-4/*", 3),
        ("&limit=2", "", "count=exact", 206, "0-1/10", 2),
        ("", "", "count=planned", 200, "0-9/10", 10),
        ("", "0-2", "", 200, "0-2/*", 3),
        ("", "8-", "count=exact", 206, "8-9/10", 2),
        ("&limit=5&offset=1", "2-3", "", 200, "2-3/*", 2),
        ("&offset=10", "", "count=exact", 206, "*/10", 0),
        ("&offset=11", "", "", 200, "*/*", 0),
        ("&limit=0", "", "", 200, "*/*", 0),
    ] {
        let mut headers = vec![("prefer", prefer)];
        if !range.is_empty() {
            headers.push(("range", range));
        }
        let target = format!("{odd}{window}");
        let answer = server.call(&me(), Method::GET, &target, &headers, "").await;
        let what = format!("{window} {range} {prefer}");
        assert_eq!(answer.status, status, "{what}");
        assert_eq!(answer.header("content-range"), content_range, "{what}");
        assert_eq!(answer.column("n").len(), shown, "{what}");
    }
    for (window, range) in
        [("&offset=11", ""), ("&limit=-1", ""), ("", "5-2"), ("", "items"), ("", "bytes=0-1")]
    {
        let mut headers = vec![("prefer", "count=exact")];
        if !range.is_empty() {
            headers.push(("range", range));
        }
        let target = format!("{odd}{window}");
        let answer = server.call(&me(), Method::GET, &target, &headers, "").await;
        assert_eq!(answer.error(), (416, "PGRST103"), "{window} {range}");
    }
    let head = server.call(&me(), Method::HEAD, odd, &[("prefer", "count=exact")], "").await;
    assert_eq!((head.status.as_u16(), head.header("content-range")), (200, "0-9/10"));
    assert_eq!(head.body, Value::Null);
    let head = server.call(&me(), Method::HEAD, "items?x=eq.1", &[], "").await;
    assert_eq!((head.status.as_u16(), &head.body), (400, &Value::Null));
    assert_eq!(head.header("proxy-status"), "PostgREST; error=42703");
}

#[tokio::test]
async fn an_answer_holds_a_thousand_rows_at_most() {
    let server = Server::new().await;
    let rows: Vec<Value> = (0..1005).map(|n| json!({"name": n.to_string(), "n": n})).collect();
    let made = server.post("items?select=n", "return=representation", &json!(rows)).await;
    assert_eq!(made.column("n").len(), 1005);
    for target in ["items?select=n", "items?select=n&limit=5000"] {
        let answer = server.get(target).await;
        assert_eq!(answer.column("n").len(), 1000);
        assert_eq!(answer.header("content-range"), "0-999/*");
    }
}

#[tokio::test]
async fn a_single_object_is_exactly_one_row() {
    let server = with_items().await;
    let object = [("accept", "application/vnd.pgrst.object+json")];
    let one = server.call(&me(), Method::GET, "items?select=n&name=eq.one", &object, "").await;
    assert_eq!((one.status.as_u16(), &one.body), (200, &json!({"n": 1})));
    assert_eq!(one.header("content-type"), "application/vnd.pgrst.object+json; charset=utf-8");
    for (target, rows) in [("items?name=eq.absent", 0), ("items?status=eq.queued", 3)] {
        let answer = server.call(&me(), Method::GET, target, &object, "").await;
        assert_eq!(answer.error(), (406, "PGRST116"));
        assert_eq!(answer.body["details"], format!("The result contains {rows} rows"));
    }
}

#[tokio::test]
async fn what_is_not_understood_is_refused() {
    let server = with_items().await;
    let deep = format!("items?and={}n.eq.1{}", "(and".repeat(20) + "(", ")".repeat(21));
    let many = format!("items?{}", vec!["n=eq.1"; 101].join("&"));
    let long = format!("items?n=in.({})", vec!["1"; 10_001].join(","));
    let wide = format!("items?select={}", vec!["*"; 100].join(","));
    for (target, status, code) in [
        ("absent", 404, "PGRST205"),
        ("teams", 404, "PGRST205"),
        ("", 404, "PGRST125"),
        ("items/1", 404, "PGRST125"),
        ("rpc/add?a=1&b=2", 405, "PGRST101"),
        ("items?absent=eq.1", 400, "42703"),
        ("items?select=absent", 400, "42703"),
        ("items?order=absent", 400, "42703"),
        ("items?or=(absent.eq.1)", 400, "42703"),
        ("items?name=nonsense.1", 400, "PGRST100"),
        ("items?name=match.x", 400, "PGRST100"),
        ("items?name=eq(any).{a}", 400, "PGRST100"),
        ("items?name=one", 400, "PGRST100"),
        ("items?name=eq", 400, "PGRST100"),
        ("items?name=not.not.eq.1", 400, "PGRST100"),
        ("items?n=in.1", 400, "PGRST100"),
        ("items?n=in.(1", 400, "PGRST100"),
        ("items?n=in.(1)x", 400, "PGRST100"),
        ("items?n=is.maybe", 400, "PGRST100"),
        ("items?or=()", 400, "PGRST100"),
        ("items?or=n.eq.1", 400, "PGRST100"),
        ("items?or=(n.eq.1", 400, "PGRST100"),
        ("items?or=(n.eq.1)x", 400, "PGRST100"),
        ("items?or=(n.eq.1,)", 400, "PGRST100"),
        ("items?select=", 400, "PGRST100"),
        ("items?select=n,", 400, "PGRST100"),
        ("items?select=*x", 400, "PGRST100"),
        ("items?select=n::int", 400, "PGRST100"),
        ("items?select=n&select=name", 400, "PGRST100"),
        ("items?select=parent(name)", 400, "PGRST200"),
        ("items?select=count()", 400, "PGRST123"),
        ("items?select=n.sum()", 400, "PGRST123"),
        ("items?order=n.up", 400, "PGRST100"),
        ("items?order=n.asc.desc", 400, "PGRST100"),
        ("items?limit=x", 400, "PGRST100"),
        ("items?limit=99999999999999999999", 400, "PGRST100"),
        ("items?parent.n=eq.1", 400, "PGRST108"),
        ("items?columns=n", 400, "PGRST100"),
        ("items?on_conflict=n", 400, "PGRST100"),
        ("items?name=eq.%FF", 400, "PGRST100"),
        ("items?name=eq.%00", 400, "22021"),
        ("items?id=eq.notauuid", 400, "22P02"),
        ("items?id=in.(notauuid)", 400, "22P02"),
        ("items?n=eq.1.5", 400, "22P02"),
        ("items?n=eq.", 400, "22P02"),
        ("items?n=eq.9223372036854775808", 400, "22003"),
        ("items?flag=eq.maybe", 400, "22P02"),
        ("items?created_at=gt.yesterday", 400, "22007"),
        ("items?created_at=gt.2025-11-03T09:32:55+00:00", 400, "22007"),
        ("items?n=is.true", 400, "42804"),
        ("items?n=like.1*", 404, "42883"),
        ("items?name->>x=eq.1", 404, "42883"),
        ("items?payload=eq.{}", 400, "PGRST100"),
        ("items?payload->x=eq.1", 400, "PGRST100"),
        ("items?order=payload->x", 400, "PGRST100"),
        ("items?payload->>a->b=eq.1", 400, "PGRST100"),
        (&deep, 413, "54001"),
        (&many, 413, "54001"),
        (&long, 413, "54001"),
        (&wide, 413, "54001"),
    ] {
        let answer = server.get(target).await;
        assert_eq!(answer.error(), (status, code), "{target}");
    }
}

#[tokio::test]
async fn headers_that_are_not_understood_are_refused() {
    let server = with_items().await;
    for (method, name, value, status, code) in [
        (Method::GET, "prefer", "tx=rollback", 400, "PGRST122"),
        (Method::GET, "prefer", "return=everything", 400, "PGRST122"),
        (Method::GET, "accept", "text/csv", 406, "PGRST107"),
        (Method::GET, "accept", "application/vnd.pgrst.plan+json", 406, "PGRST107"),
        (
            Method::GET,
            "accept",
            "application/vnd.pgrst.object+json;nulls=stripped",
            406,
            "PGRST107",
        ),
        (Method::GET, "accept-profile", "auth", 406, "PGRST106"),
        (Method::PATCH, "content-profile", "auth", 406, "PGRST106"),
        (Method::PATCH, "content-type", "text/csv", 400, "PGRST102"),
        (Method::PUT, "prefer", "return=minimal", 405, "PGRST117"),
        (Method::TRACE, "prefer", "return=minimal", 405, "PGRST117"),
    ] {
        let what = format!("{method} {name}: {value}");
        let answer = server.call(&me(), method, "items?n=eq.1", &[(name, value)], "{}").await;
        assert_eq!(answer.error(), (status, code), "{what}");
    }
    for (name, value) in [
        ("accept", "*/*"),
        ("accept", "text/html, application/json;q=0.9"),
        ("accept-profile", "public"),
        ("prefer", "count=exact, handling=strict"),
    ] {
        let answer = server.call(&me(), Method::GET, "items?n=eq.1", &[(name, value)], "").await;
        assert_eq!(answer.status, 200, "{name}: {value}");
    }
}

#[test]
fn what_took_too_long_is_told_apart_from_whom_it_hit() {
    use rusqlite::ffi;
    let interrupted =
        || rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_INTERRUPT), None);
    let slow = RestError::from(interrupted());
    assert_eq!((slow.code, slow.status(false).as_u16()), ("57014", 500));
    let hit = RestError::from(StoreError::Commit(std::sync::Arc::new(interrupted())));
    assert_eq!((hit.code, hit.status(false).as_u16()), ("53300", 503));
}
