//! Storage over HTTP: objects come in and go out, and what is refused says so as clients expect.

mod access;
mod keeping;

use std::path::PathBuf;
use std::time::Duration;

use panorama_gateway::sandbox::StorageLimits;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::context::{Context, Paired};
use crate::fixtures;

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
    format!("{:x}", Sha256::digest(bytes))
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
    // The file goes before its row is committed.
    until("all rows are gone", || context.count("contents") == 0).await;
    assert_eq!(context.count("objects"), 0);
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
