//! What storage keeps on the disk: each content once, within bounds, and nothing left over.

use std::path::PathBuf;

use futures_util::{StreamExt as _, stream};
use panorama_gateway::sandbox::{Server, ServerOptions, StorageLimits};
use reqwest::Method;
use rusqlite::Connection;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::{ROOT, ask, files, get, hex, put, refusal, refused, start, start_with, until};
use crate::context::Context;
use crate::fixtures;
use crate::operation::SmallDisk;

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
    let expected = format!("{:x}", hasher.finalize());
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
async fn a_full_disk_takes_no_more_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path().join("disk"), "8m") else { return };
    let data_dir = dir.path().join("disk/sandbox");
    let context = Context::with(|options| {
        options.schema = fixtures::schema();
        options.data_dir.clone_from(&data_dir);
    })
    .await;
    let ours = context.pair().await;
    assert_eq!(put(&context, &ours, "conformance/a", vec![1; 1_000_000]).await.status(), 200);
    let answer = put(&context, &ours, "conformance/b", vec![2; 7_900_000]).await;
    let body: Value = answer.json().await.unwrap();
    assert_eq!((&body["statusCode"], &body["code"]), (&json!("507"), &json!("DiskFull")));
    let incoming = std::fs::read_dir(data_dir.join("objects/incoming")).unwrap();
    assert_eq!(incoming.count(), 0);
    assert_eq!(put(&context, &ours, "conformance/c", vec![3; 1_000_000]).await.status(), 200);
    let read = get(&context, &ours, "conformance/a").await;
    assert_eq!(read.bytes().await.unwrap(), vec![1; 1_000_000]);
    context.server.shutdown().await;
    drop(disk);
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
    database
        .execute(
            "INSERT INTO contents (sha256, size, holders, version) VALUES (?1, 8, 0, 2)",
            [&released],
        )
        .unwrap();
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
