//! Names, bodies, ranges and tokens that storage must not take.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use panorama_gateway::sandbox::StorageLimits;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{answers_quickly, contents};
use crate::context::{Context, Paired};
use crate::fixtures;
use crate::strangers::signed;

const ROOT: &str = "/storage/v1/object";
const MIB: usize = 1024 * 1024;

async fn with_an_object() -> (Context, Paired) {
    let context = Context::with(|options| {
        options.schema = fixtures::schema();
        options.storage = StorageLimits { max_object_bytes: 1000, max_total_bytes: 2000 };
    })
    .await;
    let ours = context.pair().await;
    let stored = context.signed(Method::POST, &format!("{ROOT}/conformance/x"), &ours.access);
    assert_eq!(stored.body("0123456789").send().await.unwrap().status(), 200);
    (context, ours)
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

/// A request as it is, since clients would tidy it up.
#[derive(Clone)]
struct Raw {
    method: &'static str,
    target: String,
    headers: String,
    body: Vec<u8>,
}

impl Raw {
    fn new(method: &'static str, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), headers: String::new(), body: Vec::new() }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        write!(self.headers, "{name}: {value}\r\n").unwrap();
        self
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    fn session(self, context: &Context, ours: &Paired) -> Self {
        self.header("apikey", context.server.anon_key())
            .header("authorization", &format!("Bearer {}", ours.access))
    }

    /// Status line and all.
    async fn send(&self, context: &Context) -> String {
        let mut stream = TcpStream::connect(context.server.local_addr()).await.unwrap();
        let length = if self.headers.contains("chunked") {
            String::new()
        } else {
            format!("content-length: {}\r\n", self.body.len())
        };
        let head = format!(
            "{} {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{length}{}\r\n",
            self.method, self.target, self.headers
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // The server may refuse it by its head.
        let _ = stream.write_all(&self.body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

const NAMES: [&str; 22] = [
    "..",
    "../x",
    "../../sandbox.db",
    "a/../x",
    "a/..",
    "./x",
    "a//x",
    "a/",
    "/etc/passwd",
    "%2e%2e",
    "%2E%2e/x",
    "%2e%2e%2fsandbox.db",
    "a%2f..%2fx",
    "%2fetc%2fpasswd",
    "%00",
    "x%00.png",
    "x%0d%0aa:b",
    "%7f",
    "%c2%85",
    "%ff",
    "%c0%ae%c0%ae/x",
    "",
];

fn bad_names(context: &Context, ours: &Paired) -> Vec<Raw> {
    let long = "x".repeat(1025);
    let wide = "%c3%a9".repeat(513);
    let endless = "x".repeat(60_000);
    let names = NAMES.into_iter().chain([&*long, &*wide, &*endless]);
    let mut all = Vec::new();
    for name in names {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE"] {
            all.push(Raw::new(method, format!("{ROOT}/conformance/{name}")).body("x"));
        }
        for path in ["sign", "upload/sign"] {
            let target = format!("{ROOT}/{path}/conformance/{name}");
            all.push(Raw::new("POST", target).body("{\"expiresIn\":60}"));
        }
    }
    // Names that are names, but of nothing; and buckets that are none.
    for target in [
        r"conformance/..\..\x",
        "conformance/..%5c..%5csandbox.db",
        "conformance/%252e%252e/x",
        "conformance/...",
        "%2e%2e/x",
        "../x",
        "conformance%00/x",
        "CONFORMANCE/x",
        "absent/x",
    ] {
        all.push(Raw::new("GET", format!("{ROOT}/{target}")));
        all.push(Raw::new("DELETE", format!("{ROOT}/{target}")));
    }
    all.into_iter().map(|raw| raw.session(context, ours)).collect()
}

fn bad_bodies(context: &Context, ours: &Paired) -> Vec<Raw> {
    let object = |method| Raw::new(method, format!("{ROOT}/conformance/new"));
    let chunked = |body: &[u8]| object("POST").header("transfer-encoding", "chunked").body(body);
    let form = |body: &[u8]| {
        object("POST").header("content-type", "multipart/form-data; boundary=b").body(body)
    };
    let many = [b"7d1\r\n".to_vec(), vec![b'x'; 2001], b"\r\n0\r\n\r\n".to_vec()].concat();
    let mut all = vec![
        object("POST").body(vec![b'x'; 1001]),
        object("PUT").body(vec![b'x'; 3 * MIB]),
        object("PUT").header("content-type", "html").body("x"),
        object("PUT").header("content-type", &format!("a/{}", "b".repeat(300))).body("x"),
        chunked(&many),
        chunked(b"zz\r\nx\r\n0\r\n\r\n"),
        chunked(b"ffffffffffffffffff\r\nx"),
        object("POST").header("transfer-encoding", "chunked, chunked").body("x"),
        object("POST").header("content-type", "multipart/form-data").body("x"),
        form(b""),
        form(b"--b--\r\n"),
        form(b"--b\r\n\r\nx\r\n--b--\r\n"),
        form(b"--c\r\ncontent-disposition: form-data; name=\"\"; filename=\"x\"\r\n\r\nx\r\n--c--"),
        form(b"--b\r\ncontent-disposition: form-data; name=\"\"; filename=\"x\"\r\n\r\nunfinished"),
    ];
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let huge = format!("{{\"expiresIn\":60,\"x\":\"{}\"}}", "x".repeat(MIB));
    for body in ["", "{", "null", "7", "[1]", "{\"expiresIn\":\"x\"}", &deep, &huge] {
        all.push(Raw::new("POST", format!("{ROOT}/sign/conformance/x")).body(body));
        all.push(Raw::new("POST", format!("{ROOT}/sign/conformance")).body(body));
        all.push(Raw::new("DELETE", format!("{ROOT}/conformance")).body(body));
    }
    for range in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999-"] {
        all.push(Raw::new("GET", format!("{ROOT}/conformance/x")).header("range", range));
    }
    all.into_iter().map(|raw| raw.session(context, ours)).collect()
}

/// Signed URLs whose tokens were tampered with, made up, or meant for something else.
async fn forged(context: &Context, ours: &Paired) -> Vec<Raw> {
    let request = context.signed(Method::POST, &format!("{ROOT}/sign/conformance/x"), &ours.access);
    let answer = request.json(&json!({"expiresIn": 60})).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    let good = answer["signedURL"].as_str().unwrap().split_once("token=").unwrap().1.to_owned();
    let parts: Vec<&str> = good.split('.').collect();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let with = |name: &str, value: Value| {
        let mut changed = claims.clone();
        changed[name] = value;
        changed
    };
    let later = with("exp", json!(9_000_000_000_u64));
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let (none, hs256) = (json!({"alg": "none"}), json!({"alg": "HS256", "typ": "JWT"}));
    let tokens = [
        String::new(),
        "x".to_owned(),
        "..".to_owned(),
        "a.b.c".to_owned(),
        "%00".to_owned(),
        "x".repeat(10_000),
        format!("{good}x"),
        format!("{good}.{good}"),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}.{}", parts[0], encoded(&later), parts[2]),
        format!("{}.{}.", encoded(&none), parts[1]),
        format!("{}.{}.{}", encoded(&none), parts[1], parts[2]),
        // Signed with the right key, but wrong otherwise.
        signed(context, &json!({"alg": "HS512", "typ": "JWT"}), &claims),
        signed(context, &hs256, &with("exp", json!(1))),
        signed(context, &hs256, &with("exp", Value::Null)),
        signed(context, &hs256, &with("kind", json!("storage"))),
        signed(context, &hs256, &with("kind", Value::Null)),
        signed(context, &hs256, &with("name", json!("../x"))),
        signed(context, &hs256, &with("bucket", json!("small"))),
        ours.access.clone(),
        context.server.anon_key().to_owned(),
    ];
    let mut all = Vec::new();
    for token in tokens {
        for (method, path) in [("GET", "sign"), ("HEAD", "sign"), ("PUT", "upload/sign")] {
            let target = format!("{ROOT}/{path}/conformance/x?token={token}");
            all.push(Raw::new(method, target).body("changed"));
        }
    }
    all.push(Raw::new("PUT", format!("{ROOT}/upload/sign/conformance/x?token={good}")).body("x"));
    all.push(Raw::new("GET", format!("{ROOT}/sign/conformance/y?token={good}")));
    all
}

#[tokio::test]
async fn storage_refuses_bad_input_and_writes_nothing() {
    let (context, ours) = with_an_object().await;
    std::fs::write(context.dir.path().join("x"), "outside").unwrap();
    let objects = context.data_dir().join("objects");
    let before = (contents(&context), files(&objects), files(context.dir.path()).len());
    let mut all = bad_names(&context, &ours);
    all.extend(bad_bodies(&context, &ours));
    all.extend(forged(&context, &ours).await);
    for raw in all {
        let answer = raw.send(&context).await;
        let what = format!("{} {:.200} {:.100}", raw.method, raw.target, raw.headers);
        assert!(answer.starts_with("HTTP/1.1 4"), "{what}: {answer:.500}");
        assert!(!answer.contains("outside"), "{what}: {answer:.500}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        // What is no HTTP is refused before there is anybody to explain it.
        let explained = body.contains("\"message\"") || raw.method == "HEAD";
        assert!(explained || head.contains("content-length: 0"), "{what}: {answer:.500}");
    }
    // A header that is no range is none.
    for range in ["bytes=a-b", "bytes=5-1", "bytes=0-1,3-4", "lines=0-1", "bytes", "=", "-"] {
        let raw = Raw::new("GET", format!("{ROOT}/conformance/x")).header("range", range);
        let answer = raw.session(&context, &ours).send(&context).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("0123456789"), "{range}");
    }
    answers_quickly(&context, &ours).await;
    assert_eq!((contents(&context), files(&objects), files(context.dir.path()).len()), before);
}
