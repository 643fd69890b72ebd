//! Who reaches what in storage: sessions, teams, signed URLs, and names that try to lead elsewhere.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{ROOT, ask, files, get, put, refusal, refused, start};
use crate::strangers::stranger;

#[tokio::test]
async fn a_signed_url_reads_one_object_without_a_key() {
    let (context, ours) = start().await;
    for name in ["dir%20a/x+1", "y"] {
        put(&context, &ours, &format!("conformance/{name}"), name).await;
    }
    let sign = |path: &'static str, body: Value| ask(&context, &ours, Method::POST, path, body);
    let signed = sign("sign/conformance/dir%20a/x+1", json!({"expiresIn": 60})).await;
    let signed: Value = signed.json().await.unwrap();
    let url = signed["signedURL"].as_str().unwrap();
    assert!(url.starts_with("/object/sign/conformance/dir a/x+1?token="), "{url}");
    let url = format!("{}{ROOT}{url}", context.server.url());
    let read = context.http.get(&url).send().await.unwrap();
    assert_eq!(read.bytes().await.unwrap(), "dir%20a/x+1");
    let saved = context.http.get(format!("{url}&download=a%22.bin")).send().await.unwrap();
    assert_eq!(saved.headers()["content-disposition"], "attachment; filename*=UTF-8''a%22%2Ebin");
    let body = json!({"expiresIn": 60, "paths": ["y", "absent", "../y"]});
    let many: Value = sign("sign/conformance", body).await.json().await.unwrap();
    assert_eq!((&many[0]["path"], &many[0]["error"]), (&json!("y"), &Value::Null));
    assert!(many[0]["signedURL"].is_string());
    for failed in [&many[1], &many[2]] {
        assert!(failed["signedURL"].is_null() && failed["error"].is_string(), "{failed}");
    }
    for (path, body, code) in [
        ("sign/conformance/absent", json!({"expiresIn": 60}), "404"),
        ("sign/absent/y", json!({"expiresIn": 60}), "404"),
        ("sign/conformance/y", json!({"expiresIn": 0}), "400"),
        ("sign/conformance/y", json!({"expiresIn": -1}), "400"),
        ("sign/conformance/y", json!({"expiresIn": 60, "transform": {"width": 1}}), "400"),
        ("sign/conformance/y", json!({}), "400"),
    ] {
        assert_eq!(refusal(sign(path, body.clone()).await).await, refused(code), "{path} {body}");
    }
}

#[tokio::test]
async fn a_signed_url_stores_one_object_once() {
    let (context, ours) = start().await;
    let sign = |upsert: &'static str| {
        context
            .signed(
                Method::POST,
                &format!("{ROOT}/object/upload/sign/conformance/a%20b"),
                &ours.access,
            )
            .header("x-upsert", upsert)
            .json(&json!({}))
            .send()
    };
    let signed: Value = sign("false").await.unwrap().json().await.unwrap();
    let url = signed["url"].as_str().unwrap().to_owned();
    let token = signed["token"].as_str().unwrap();
    assert_eq!(url, format!("/object/upload/sign/conformance/a%20b?token={token}"));
    let store = |url: &str, body: &'static str| {
        let url = format!("{}{ROOT}{url}", context.server.url());
        context.http.put(url).header("x-upsert", "true").body(body).send()
    };
    let stored = store(&url, "one").await.unwrap();
    assert_eq!(stored.status(), 200);
    assert_eq!(stored.json::<Value>().await.unwrap(), json!({"Key": "conformance/a b"}));
    assert_eq!(refusal(store(&url, "two").await.unwrap()).await, refused("409"));
    assert_eq!(refusal(sign("false").await.unwrap()).await, refused("409"));
    let signed: Value = sign("true").await.unwrap().json().await.unwrap();
    let url = signed["url"].as_str().unwrap().to_owned();
    assert_eq!(store(&url, "two").await.unwrap().status(), 200);
    assert_eq!(get(&context, &ours, "conformance/a%20b").await.bytes().await.unwrap(), "two");
}

#[tokio::test]
async fn a_token_grants_nothing_else() {
    let (context, ours) = start().await;
    put(&context, &ours, "conformance/x", "x").await;
    put(&context, &ours, "small/x", "x").await;
    let sign = async |path: &str| {
        let body = if path.starts_with("sign") { json!({"expiresIn": 60}) } else { json!({}) };
        let request = context.signed(Method::POST, &format!("{ROOT}/object/{path}"), &ours.access);
        let answer = request.header("x-upsert", "true").json(&body).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        let url = answer["signedURL"].as_str().or(answer["url"].as_str()).unwrap().to_owned();
        url.split_once("?token=").unwrap().1.to_owned()
    };
    let download = sign("sign/conformance/x").await;
    let upload = sign("upload/sign/conformance/x").await;
    let send = |method: Method, path: &str, token: &str| {
        let url = format!("{}{ROOT}/object/{path}?token={token}", context.server.url());
        context.http.request(method, url).body("changed").send()
    };
    let broken = format!("{}xyz", download.get(..download.len() - 3).unwrap());
    for (method, path, token) in [
        (Method::PUT, "upload/sign/conformance/x", &download),
        (Method::GET, "sign/conformance/x", &upload),
        (Method::GET, "sign/conformance/y", &download),
        (Method::GET, "sign/small/x", &download),
        (Method::GET, "sign/conformance/x", &broken),
        (Method::GET, "sign/conformance/x", &ours.access),
        (Method::GET, "sign/conformance/x", &context.server.anon_key().to_owned()),
        (Method::GET, "sign/conformance/x", &String::new()),
        (Method::PUT, "upload/sign/conformance/y", &upload),
        (Method::PUT, "upload/sign/conformance/x", &ours.access),
    ] {
        let answer = send(method.clone(), path, token).await.unwrap();
        assert_eq!(refusal(answer).await, refused("403"), "{method} {path}");
    }
    for token in [&download, &upload] {
        let rows = "/rest/v1/gateway_jobs?select=id";
        assert_eq!(context.signed(Method::GET, rows, token).send().await.unwrap().status(), 401);
        let read = context.signed(Method::GET, &format!("{ROOT}/object/conformance/x"), token);
        assert_eq!(refusal(read.send().await.unwrap()).await, refused("403"));
        let plain = send(Method::GET, "conformance/x", token).await.unwrap();
        assert_eq!(plain.status(), 401, "no key");
    }
    assert_eq!(get(&context, &ours, "conformance/x").await.bytes().await.unwrap(), "x");
    assert_eq!(send(Method::GET, "sign/conformance/x", &download).await.unwrap().status(), 200);
}

#[tokio::test]
async fn only_a_session_reaches_objects_without_a_signed_url() {
    let (context, ours) = start().await;
    put(&context, &ours, "conformance/x", "x").await;
    for (method, path) in [
        (Method::GET, "conformance/x"),
        (Method::PUT, "conformance/x"),
        (Method::POST, "conformance/y"),
        (Method::DELETE, "conformance/x"),
        (Method::DELETE, "conformance"),
        (Method::POST, "sign/conformance/x"),
        (Method::POST, "upload/sign/conformance/y"),
    ] {
        let path = format!("{ROOT}/object/{path}");
        let anonymous = context.request(method.clone(), &path).json(&json!({})).send();
        assert_eq!(refusal(anonymous.await.unwrap()).await, refused("403"), "{method} {path}");
        let forged = context.signed(method.clone(), &path, "a.b.c").json(&json!({})).send();
        assert_eq!(refusal(forged.await.unwrap()).await, refused("403"), "{method} {path}");
        let url = format!("{}{path}", context.server.url());
        let keyless = context.http.request(method, url).bearer_auth(&ours.access).json(&json!({}));
        assert_eq!(keyless.send().await.unwrap().status(), 401);
    }
    assert_eq!(context.count("objects"), 1);
}

#[tokio::test]
async fn another_team_has_objects_of_its_own() {
    let (context, ours) = start().await;
    let other = stranger(&context).await;
    let path = "conformance/x";
    put(&context, &ours, path, "ours").await;
    assert_eq!(refusal(get(&context, &other, path).await).await, refused("404"));
    let sign = ask(&context, &other, Method::POST, "sign/conformance/x", json!({"expiresIn": 9}));
    assert_eq!(refusal(sign.await).await, refused("404"));
    let remove = ask(&context, &other, Method::DELETE, path, Value::Null).await;
    assert_eq!(refusal(remove).await, refused("404"));
    let body = json!({"prefixes": ["x"]});
    let removed = ask(&context, &other, Method::DELETE, "conformance", body).await;
    assert_eq!(removed.json::<Value>().await.unwrap(), json!([]));
    assert_eq!(put(&context, &other, path, "theirs").await.status(), 200);
    assert_eq!(get(&context, &ours, path).await.bytes().await.unwrap(), "ours");
    assert_eq!(get(&context, &other, path).await.bytes().await.unwrap(), "theirs");
    let colleague = context.pair().await;
    assert_eq!(get(&context, &colleague, path).await.bytes().await.unwrap(), "ours");
}

#[tokio::test]
async fn no_name_leads_out_of_the_bucket() {
    let (context, ours) = start().await;
    std::fs::write(context.dir.path().join("outside"), "secret").unwrap();
    let names = [
        "..",
        "../outside",
        "../../outside",
        "%2e%2e/outside",
        "%2e%2e%2foutside",
        "a/../../outside",
        "a/%2e%2e/%2e%2e/outside",
        "./outside",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "a//b",
        "a/",
        "%00",
        "a%00b",
        "a%0d%0aX-Evil:1",
        "%ff",
        "",
    ];
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE"] {
        for name in names {
            let mut stream = TcpStream::connect(context.server.local_addr()).await.unwrap();
            let request = format!(
                "{method} {ROOT}/object/conformance/{name} HTTP/1.1\r\nHost: localhost\r\n\
                 apikey: {}\r\nAuthorization: Bearer {}\r\nContent-Length: 1\r\n\
                 Connection: close\r\n\r\nx",
                context.server.anon_key(),
                ours.access
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with("HTTP/1.1 400 "), "{method} {name}: {answer}");
            assert!(!answer.contains("secret"), "{method} {name}: {answer}");
        }
    }
    assert_eq!(context.count("objects"), 0);
    // What looks like a way out once decoded twice is a name like others.
    for name in ["%252e%252e%252foutside", r"..%5C..%5Coutside"] {
        let path = format!("conformance/{name}");
        assert_eq!(put(&context, &ours, &path, "inside").await.status(), 200, "{name}");
        assert_eq!(get(&context, &ours, &path).await.bytes().await.unwrap(), "inside");
    }
    assert_eq!(files(&context).1.len(), 1);
    let kept = std::fs::read_to_string(context.dir.path().join("outside")).unwrap();
    assert_eq!(kept, "secret");
}

#[tokio::test]
async fn an_uploaded_page_cannot_act_on_this_origin() {
    let (context, ours) = start().await;
    for (name, kind, shown) in [
        ("x.html", "text/html", "text/html"),
        ("x.svg", "image/svg+xml", "image/svg+xml"),
        ("x.js", "text/javascript", "text/plain; charset=utf-8"),
    ] {
        let path = format!("{ROOT}/object/conformance/{name}");
        let stored = context
            .signed(Method::POST, &path, &ours.access)
            .header("content-type", kind)
            .body("<script>alert(1)</script>")
            .send();
        assert_eq!(stored.await.unwrap().status(), 200);
        let read = get(&context, &ours, &format!("conformance/{name}")).await;
        let header = |name: &str| read.headers()[name].to_str().unwrap();
        assert_eq!(header("content-type"), shown);
        assert_eq!(header("x-content-type-options"), "nosniff");
        let policy = "sandbox; default-src 'none'; frame-ancestors 'none'";
        assert_eq!(header("content-security-policy"), policy);
        assert_eq!(header("cache-control"), "no-cache");
    }
    for kind in ["html", "text/html\u{e9}", &format!("a/{}", "b".repeat(300))] {
        let path = format!("{ROOT}/object/conformance/bad");
        let request = context.signed(Method::POST, &path, &ours.access);
        let answer = request.header("content-type", kind).body("x").send().await.unwrap();
        assert_eq!(refusal(answer).await, refused("400"), "{kind}");
    }
}
