//! Storage: objects come in and go out, signed URLs grant what they say, and nothing is left over.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use panorama_gateway::sandbox::{Server, ServerOptions, StorageLimits};
use reqwest::{Method, Response};
use rusqlite::Connection;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::context::{Context, Paired};
use crate::fixtures;
use crate::strangers::stranger;

const ROOT: &str = "/storage/v1";

async fn start() -> (Context, Paired) {
    start_with(StorageLimits::default()).await
}

async fn start_with(limits: StorageLimits) -> (Context, Paired) {
    let context = Context::with(|options| {
        options.schema = fixtures::schema();
        options.storage = limits;
    })
    .await;
    let ours = context.pair().await;
    (context, ours)
}

/// A request of a session below `object/`.
async fn ask(context: &Context, by: &Paired, method: Method, path: &str, body: Value) -> Response {
    let path = format!("{ROOT}/object/{path}");
    let request = context.signed(method, &path, &by.access);
    let request = if body.is_null() { request } else { request.json(&body) };
    request.send().await.unwrap()
}

async fn put(context: &Context, by: &Paired, path: &str, bytes: impl Into<Vec<u8>>) -> Response {
    context
        .signed(Method::POST, &format!("{ROOT}/object/{path}"), &by.access)
        .header("content-type", "application/octet-stream")
        .body(bytes.into())
        .send()
        .await
        .unwrap()
}

async fn get(context: &Context, by: &Paired, path: &str) -> Response {
    ask(context, by, Method::GET, path, Value::Null).await
}

/// HTTP status and the status in the body.
async fn refusal(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["statusCode", "error", "message", "code"], "{body}");
    (status, body["statusCode"].as_str().unwrap().to_owned())
}

fn refused(code: &str) -> (u16, String) {
    (400, code.to_owned())
}

/// Files of contents, those on their way in first.
fn files(context: &Context) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let list = |path: PathBuf| -> Vec<PathBuf> {
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let (incoming, others): (Vec<_>, Vec<_>) = list(context.data_dir().join("objects"))
        .into_iter()
        .partition(|dir| dir.ends_with("incoming"));
    (incoming.into_iter().flat_map(list).collect(), others.into_iter().flat_map(list).collect())
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn an_object_comes_back_as_it_went_in() {
    use std::os::unix::fs::PermissionsExt as _;
    let (context, ours) = start().await;
    let bytes: Vec<u8> = (0..5000_u32).map(|n| (n * 7).to_le_bytes()[0]).collect();
    let stored = context
        .signed(Method::POST, &format!("{ROOT}/object/conformance/dir%20a/x+1.bin"), &ours.access)
        .header("content-type", "image/png")
        .header("cache-control", "max-age=60")
        .body(bytes.clone())
        .send()
        .await
        .unwrap();
    assert_eq!(stored.status(), 200);
    let stored: Value = stored.json().await.unwrap();
    assert_eq!(stored["Key"], "conformance/dir a/x+1.bin");
    assert!(stored["Id"].is_string());
    for path in ["conformance/dir a/x+1.bin", "authenticated/conformance/dir%20a%2Fx%2B1.bin"] {
        let head = ask(&context, &ours, Method::HEAD, path, Value::Null).await;
        let whole = get(&context, &ours, path).await;
        for answer in [&head, &whole] {
            assert_eq!(answer.status(), 200);
            let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
            assert_eq!(header("content-type"), "image/png");
            assert_eq!(header("content-length"), "5000");
            assert_eq!(header("etag"), format!("\"{}\"", hex(&bytes)));
            assert_eq!(header("cache-control"), "private, max-age=60");
            assert_eq!(header("accept-ranges"), "bytes");
            assert_eq!(header("x-content-type-options"), "nosniff");
            assert!(header("content-security-policy").starts_with("sandbox;"));
        }
        assert!(head.bytes().await.unwrap().is_empty());
        assert_eq!(whole.bytes().await.unwrap(), bytes);
    }
    let (incoming, contents) = files(&context);
    assert_eq!(incoming, Vec::<PathBuf>::new());
    let name = hex(&bytes);
    assert_eq!(contents, [context.data_dir().join("objects").join(&name[..2]).join(&name)]);
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&contents[0]), 0o600);
    assert_eq!(mode(contents[0].parent().unwrap()), 0o700);
}

#[tokio::test]
async fn what_is_there_stays_unless_it_is_to_be_replaced() {
    let (context, ours) = start().await;
    let path = "conformance/x";
    assert_eq!(put(&context, &ours, path, "one").await.status(), 200);
    assert_eq!(refusal(put(&context, &ours, path, "two").await).await, refused("409"));
    assert_eq!(get(&context, &ours, path).await.bytes().await.unwrap(), "one");
    let replace = |method: Method, upsert: &str, body: &'static str| {
        let request = context.signed(method, &format!("{ROOT}/object/{path}"), &ours.access);
        request.header("x-upsert", upsert).body(body).send()
    };
    assert_eq!(replace(Method::POST, "true", "two").await.unwrap().status(), 200);
    assert_eq!(get(&context, &ours, path).await.bytes().await.unwrap(), "two");
    assert_eq!(replace(Method::PUT, "false", "three").await.unwrap().status(), 200);
    assert_eq!(get(&context, &ours, path).await.bytes().await.unwrap(), "three");
    let removed = ask(&context, &ours, Method::DELETE, path, Value::Null).await;
    assert_eq!(removed.status(), 200);
    assert_eq!(refusal(get(&context, &ours, path).await).await, refused("404"));
    let again = ask(&context, &ours, Method::DELETE, path, Value::Null).await;
    assert_eq!(refusal(again).await, refused("404"));
    until("all contents are gone", || files(&context).1.is_empty()).await;
    assert_eq!((context.count("objects"), context.count("contents")), (0, 0));
}

#[tokio::test]
async fn two_that_store_at_once_are_one_winner_and_one_duplicate() {
    let (context, ours) = start().await;
    let both = tokio::join!(
        put(&context, &ours, "conformance/x", "one"),
        put(&context, &ours, "conformance/x", "two"),
    );
    let mut statuses = [both.0.status().as_u16(), both.1.status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400]);
    until("the loser's content is gone", || {
        let (incoming, contents) = files(&context);
        incoming.is_empty() && contents.len() == 1
    })
    .await;
}

#[tokio::test]
async fn equal_contents_are_one_file_that_goes_with_the_last() {
    let (context, ours) = start().await;
    for name in ["a", "b", "c"] {
        let path = format!("conformance/{name}");
        assert_eq!(put(&context, &ours, &path, "same").await.status(), 200);
    }
    assert_eq!((context.count("objects"), files(&context).1.len()), (3, 1));
    let body = json!({"prefixes": ["a", "b", "absent", "../x"]});
    let removed = ask(&context, &ours, Method::DELETE, "conformance", body).await;
    let removed: Vec<Value> = removed.json().await.unwrap();
    let names: Vec<&str> = removed.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(get(&context, &ours, "conformance/c").await.bytes().await.unwrap(), "same");
    let body = json!({"prefixes": ["c"]});
    ask(&context, &ours, Method::DELETE, "conformance", body).await;
    until("the content is gone", || files(&context).1.is_empty()).await;
    assert_eq!(put(&context, &ours, "conformance/d", "same").await.status(), 200);
    assert_eq!(get(&context, &ours, "conformance/d").await.bytes().await.unwrap(), "same");
}

#[tokio::test]
async fn contents_that_come_and_go_at_once_are_never_lost() {
    let (context, ours) = start().await;
    let workers = (0..6).map(|worker| {
        let (context, ours) = (&context, &ours);
        async move {
            let path = format!("conformance/{worker}");
            for _ in 0..15 {
                assert_eq!(put(context, ours, &path, "the same").await.status(), 200);
                let read = get(context, ours, &path).await;
                assert_eq!(read.bytes().await.unwrap(), "the same");
                let removed = ask(context, ours, Method::DELETE, &path, Value::Null).await;
                assert_eq!(removed.status(), 200);
            }
        }
    });
    futures_util::future::join_all(workers).await;
    until("the content is gone", || files(&context) == (Vec::new(), Vec::new())).await;
}

#[tokio::test]
async fn parts_of_an_object_are_served() {
    let (context, ours) = start().await;
    put(&context, &ours, "conformance/x", (0..100).collect::<Vec<u8>>()).await;
    let part = |range: &'static str, tag: Option<String>| {
        let path = format!("{ROOT}/object/conformance/x");
        let request = context.signed(Method::GET, &path, &ours.access).header("range", range);
        tag.map_or_else(
            || request.try_clone().unwrap(),
            |tag| request.try_clone().unwrap().header("if-range", tag),
        )
        .send()
    };
    let etag = get(&context, &ours, "conformance/x").await.headers()["etag"].clone();
    let etag = etag.to_str().unwrap().to_owned();
    for (range, tag, expected) in [
        ("bytes=10-19", None, 10..20),
        ("bytes=90-", None, 90..100),
        ("bytes=-1", None, 99..100),
        ("bytes=0-1000", Some(etag), 0..100),
    ] {
        let answer = part(range, tag).await.unwrap();
        assert_eq!(answer.status(), 206, "{range}");
        let content_range = format!("bytes {}-{}/100", expected.start, expected.end - 1);
        assert_eq!(answer.headers()["content-range"], content_range);
        assert_eq!(answer.bytes().await.unwrap(), expected.collect::<Vec<u8>>());
    }
    for range in ["bytes=0-1,5-6", "lines=0-1"] {
        assert_eq!(part(range, None).await.unwrap().status(), 200, "{range}");
    }
    let other = part("bytes=0-1", Some("\"another\"".to_owned())).await.unwrap();
    assert_eq!((other.status().as_u16(), other.content_length()), (200, Some(100)));
    let outside = part("bytes=100-", None).await.unwrap();
    assert_eq!(outside.headers()["content-range"], "bytes */100");
    assert_eq!(refusal(outside).await, (416, "416".to_owned()));
}

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
async fn a_form_as_browsers_send_it_is_taken() {
    let (context, ours) = start().await;
    let send = |method: Method, name: &str, body: Vec<u8>| {
        context
            .signed(method, &format!("{ROOT}/object/conformance/{name}"), &ours.access)
            .header("content-type", "multipart/form-data; boundary=--b")
            .body(body)
            .send()
    };
    let part = |name: &str, more: &str, inner: &[u8]| {
        let head =
            format!("----b\r\nContent-Disposition: form-data; name=\"{name}\"{more}\r\n\r\n");
        [head.as_bytes(), inner, b"\r\n"].concat()
    };
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let file = part("", "; filename=\"blob\"\r\nContent-Type: image/png", &bytes);
    let age = part("cacheControl", "", b"60");
    let end = b"----b--\r\n".to_vec();
    for (name, body) in
        [("x", [&*age, &*file, &*end].concat()), ("y", [&*file, &*age, &*end].concat())]
    {
        assert_eq!(send(Method::POST, name, body).await.unwrap().status(), 200);
        let read = get(&context, &ours, &format!("conformance/{name}")).await;
        assert_eq!(read.headers()["content-type"], "image/png");
        assert_eq!(read.headers()["cache-control"], "private, max-age=60");
        assert_eq!(read.bytes().await.unwrap(), bytes);
    }
    let metadata = part("metadata", "", b"{}");
    for body in [
        [&*age, &*end].concat(),
        [&*age, &*file].concat(),
        [&*metadata, &*file, &*end].concat(),
        [&*file, &*file, &*end].concat(),
    ] {
        let answer = send(Method::PUT, "z", body).await.unwrap();
        assert_eq!(refusal(answer).await, refused("400"));
    }
    assert_eq!((context.count("objects"), files(&context).0.len()), (2, 0));
}

#[tokio::test]
async fn a_large_body_goes_to_the_disk_as_it_comes_in() {
    const CHUNK: usize = 1024 * 1024;
    const CHUNKS: u64 = 64;
    // What may be on its way: buffers of sockets and of both HTTP ends.
    const SLACK: u64 = 8;
    let (context, ours) = start().await;
    let directory = context.data_dir().join("objects/incoming");
    let on_disk = move || -> u64 {
        let entries = std::fs::read_dir(&directory).unwrap();
        entries.map(|entry| entry.unwrap().metadata().map_or(0, |file| file.len())).sum()
    };
    let chunk = |n: u64| vec![n.to_le_bytes()[0]; CHUNK];
    // Each chunk is only sent when those before it, but for the slack, are in the temp file.
    let body = stream::iter(0..CHUNKS).then(move |n| {
        let on_disk = on_disk.clone();
        async move {
            let before = n.saturating_sub(SLACK) * CHUNK as u64;
            until("the disk has what was sent", || on_disk() >= before).await;
            Ok::<_, std::io::Error>(chunk(n))
        }
    });
    let stored = context
        .signed(Method::POST, &format!("{ROOT}/object/conformance/large"), &ours.access)
        .body(reqwest::Body::wrap_stream(body))
        .send()
        .await
        .unwrap();
    assert_eq!(stored.status(), 200, "{}", stored.text().await.unwrap());
    let mut hasher = Sha256::new();
    (0..CHUNKS).for_each(|n| hasher.update(vec![n.to_le_bytes()[0]; CHUNK]));
    let expected: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let read = get(&context, &ours, "conformance/large").await;
    assert_eq!(read.headers()["etag"], format!("\"{expected}\""));
    let (mut seen, mut body) = (0, read.bytes_stream());
    while let Some(bytes) = body.next().await {
        for byte in bytes.unwrap() {
            assert_eq!(byte, (seen / CHUNK).to_le_bytes()[0]);
            seen += 1;
        }
    }
    assert_eq!(seen as u64, CHUNKS * CHUNK as u64);
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let (context, ours) = start().await;
    let key = context.server.anon_key();
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let mut stream = TcpStream::connect(context.server.local_addr()).await.unwrap();
        let head = format!(
            "POST {ROOT}/object/conformance/cut HTTP/1.1\r\nHost: localhost\r\napikey: {key}\r\n\
             Authorization: Bearer {}\r\n{framing}\r\n\r\n",
            ours.access
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(format!("10000\r\n{}", "x".repeat(65_536)).as_bytes()).await.unwrap();
        until("it has begun", || {
            let (incoming, _) = files(&context);
            incoming.first().is_some_and(|file| file.metadata().is_ok_and(|file| file.len() > 0))
        })
        .await;
        drop(stream);
        until("nothing is left", || files(&context) == (Vec::new(), Vec::new())).await;
    }
    assert_eq!((context.count("objects"), context.count("contents")), (0, 0));
}

#[tokio::test]
async fn the_bounds_hold_for_an_object_a_bucket_and_all() {
    let limits = StorageLimits { max_object_bytes: 2000, max_total_bytes: 5000 };
    let (context, ours) = start_with(limits).await;
    let send = |path: &'static str, size: u8, n: usize| put(&context, &ours, path, vec![size; n]);
    assert_eq!(send("conformance/a", 1, 2000).await.status(), 200);
    assert_eq!(refusal(send("conformance/b", 2, 2001).await).await, refused("413"));
    assert_eq!(send("small/a", 3, 1000).await.status(), 200);
    assert_eq!(refusal(send("small/b", 4, 1001).await).await, refused("413"));
    // Without its length it is found out on the way.
    let body = stream::iter((0..3).map(|_| Ok::<_, std::io::Error>(vec![5_u8; 1000])));
    let unannounced = context
        .signed(Method::POST, &format!("{ROOT}/object/conformance/b"), &ours.access)
        .body(reqwest::Body::wrap_stream(body))
        .send();
    assert_eq!(refusal(unannounced.await.unwrap()).await, refused("413"));
    assert_eq!(send("conformance/c", 6, 1500).await.status(), 200);
    assert_eq!(refusal(send("conformance/d", 7, 501).await).await, refused("413"));
    assert_eq!(files(&context).0, Vec::<PathBuf>::new());
    // Room comes back, and equal contents take it once.
    ask(&context, &ours, Method::DELETE, "conformance/c", Value::Null).await;
    until("the content is gone", || files(&context).1.len() == 2).await;
    assert_eq!(send("conformance/d", 1, 2000).await.status(), 200);
    assert_eq!(send("conformance/e", 8, 2000).await.status(), 200);
    assert_eq!(refusal(send("conformance/f", 9, 1).await).await, refused("413"));
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

#[tokio::test]
async fn what_is_not_built_says_so() {
    let (context, ours) = start().await;
    for (method, path) in [
        (Method::GET, "bucket"),
        (Method::POST, "bucket"),
        (Method::POST, "upload/resumable"),
        (Method::POST, "object/list/conformance"),
        (Method::POST, "object/move"),
        (Method::GET, "object/info/conformance/x"),
        (Method::GET, "object/public/conformance/x"),
        (Method::PATCH, "object/conformance/x"),
    ] {
        let path = format!("{ROOT}/{path}");
        let answer = context.signed(method.clone(), &path, &ours.access).json(&json!({})).send();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 400, "{method} {path}");
        let body: Value = answer.json().await.unwrap();
        assert_eq!((&body["statusCode"], &body["code"]), (&json!("404"), &json!("NotImplemented")));
    }
    let unknown = get(&context, &ours, "absent/x").await;
    assert_eq!(refusal(unknown).await, refused("404"));
}

#[tokio::test]
async fn a_start_removes_what_a_crash_left_and_keeps_the_rest() {
    let (context, ours) = start().await;
    put(&context, &ours, "conformance/kept", "kept").await;
    let (anon_key, data_dir) = (context.server.anon_key().to_owned(), context.data_dir());
    let Context { server, dir: _dir, http } = context;
    server.shutdown().await;
    let objects = data_dir.join("objects");
    let orphan = hex(b"orphan");
    let released = hex(b"released");
    for (path, content) in [
        (objects.join("incoming/abcdef.tmp"), "half"),
        (objects.join(&orphan[..2]).join(&orphan), "orphan"),
        (objects.join(&released[..2]).join(&released), "released"),
        (objects.join(&hex(b"kept")[..2]).join("stray"), "stray"),
        (objects.join("zz").join(hex(b"kept")), "kept"),
    ] {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let database = Connection::open(data_dir.join("sandbox.db")).unwrap();
    database.execute("INSERT INTO contents VALUES (?1, 8, 0, 2)", [&released]).unwrap();
    drop(database);
    let mut options = ServerOptions::new(&data_dir, "127.0.0.1:0".parse().unwrap());
    options.schema = fixtures::schema();
    let server = Server::start(options).await.unwrap();
    let left: Vec<PathBuf> = std::fs::read_dir(&objects)
        .unwrap()
        .flat_map(|parent| std::fs::read_dir(parent.unwrap().path()).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    let kept = hex(b"kept");
    assert_eq!(left, [objects.join(&kept[..2]).join(&kept)]);
    let url = format!("{}{ROOT}/object/conformance/kept", server.url());
    let read = http.get(url).header("apikey", anon_key).bearer_auth(&ours.access).send();
    assert_eq!(read.await.unwrap().bytes().await.unwrap(), "kept");
    let database = Connection::open(data_dir.join("sandbox.db")).unwrap();
    let count = "SELECT count(*) FROM contents";
    assert_eq!(database.query_row(count, [], |row| row.get::<_, i64>(0)), Ok(1));
    server.shutdown().await;
}
