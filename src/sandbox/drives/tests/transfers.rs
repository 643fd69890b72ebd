//! Contents on their way in and out.

use serde_json::json;

use super::*;

const PART: usize = 8 * 1024 * 1024;

impl Fixture {
    pub(super) async fn send(&self, url: &str, bytes: Vec<u8>) -> StatusCode {
        self.http.put(url).body(bytes).send().await.unwrap().status()
    }

    async fn commit(&self, upload: &Value, operation: &Value) -> (StatusCode, Value) {
        self.call(json!({"action": "commit_upload", "upload_id": upload["upload_id"],
                         "operation_id": operation["operation_id"]}))
            .await
    }

    async fn download(&self, done: &Value) -> Value {
        self.done(json!({"action": "download", "entry_id": done["entry"]["id"],
                         "version_id": version(done)}))
            .await
    }
}

fn url(prepared: &Value) -> &str {
    prepared["url"].as_str().unwrap()
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[tokio::test]
async fn an_upload_is_sent_and_committed_once() {
    let fixture = Fixture::new().await;
    let content = noise(100_000);
    let action = prepare("a", &content);
    let prepared = fixture.done(action.clone()).await;
    assert_eq!((&prepared["present"], &prepared["method"]), (&json!(false), &json!("PUT")));
    // Before anything came.
    let (status, answer) = fixture.commit(&prepared, &action).await;
    assert_eq!((status.as_u16(), &answer["error"]["code"]), (409, &json!("content_missing")));
    // Another content of that length, then one of another.
    let other = vec![0; 100_000];
    assert_eq!(fixture.send(url(&prepared), other).await, 204);
    let (status, answer) = fixture.commit(&prepared, &action).await;
    assert_eq!((status.as_u16(), &answer["error"]["code"]), (422, &json!("content_mismatch")));
    assert_eq!(fixture.send(url(&prepared), content[1..].to_vec()).await, 422);
    assert_eq!(fixture.send(url(&prepared), [&content[..], b"x"].concat()).await, 413);
    assert_eq!(fixture.send(url(&prepared), content.clone()).await, 204);
    assert_eq!(fixture.snapshot().await.1.len(), 0);
    let (status, done) = fixture.commit(&prepared, &action).await;
    assert_eq!(status, 200, "{done}");
    assert_eq!(fixture.commit(&prepared, &action).await, (status, done.clone()));
    let again = fixture.done(action.clone()).await;
    assert_eq!((&again["committed"], &again["present"]), (&done, &json!(true)));
    assert_eq!(fixture.send(url(&prepared), content.clone()).await, 404);
    // The upload of somebody else's operation.
    let (_, answer) = fixture.commit(&json!({"upload_id": id()}), &action).await;
    assert_eq!(answer["error"]["code"], "operation_reused");
    let (_, answer) = fixture.commit(&prepared, &json!({"operation_id": id()})).await;
    assert_eq!(answer["error"]["code"], "upload_not_found");
    fixture.collected().await;
    assert_eq!(fixture.files(), 1);
    let link = fixture.download(&done).await;
    let got = fixture.http.get(url(&link)).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(got, content);
}

#[tokio::test]
async fn parts_come_in_any_order_and_outlive_a_restart() {
    let fixture = Fixture::new().await;
    let content = noise(2 * PART + 5);
    let action = prepare("large", &content);
    let prepared = fixture.done(action.clone()).await;
    assert_eq!(prepared["part_size"], PART);
    let part = |prepared: &Value, number: usize| {
        (
            url(prepared).replace("{part}", &number.to_string()),
            content[(number - 1) * PART..content.len().min(number * PART)].to_vec(),
        )
    };
    for number in [3, 1] {
        let (url, bytes) = part(&prepared, number);
        assert_eq!(fixture.send(&url, bytes).await, 204);
    }
    let (url4, _) = part(&prepared, 3);
    assert_eq!(fixture.send(&url4.replace("/3?", "/4?"), vec![1]).await, 404);
    assert_eq!(fixture.send(&url4.replace("/3?", "/0?"), vec![1]).await, 404);
    let (_, missing) = fixture.commit(&prepared, &action).await;
    assert_eq!(missing["error"]["code"], "content_missing");
    let fixture = fixture.restarted().await;
    let again = fixture.done(action.clone()).await;
    assert_eq!(again["upload_id"], prepared["upload_id"]);
    assert_eq!(again["parts"], json!([1, 3]));
    let (url2, bytes) = part(&again, 2);
    assert_eq!(fixture.send(&url2, noise(PART)).await, 204);
    let (_, wrong) = fixture.commit(&again, &action).await;
    // The noise is that of the first part.
    assert_eq!(wrong["error"]["code"], "content_mismatch");
    assert_eq!(fixture.send(&url2, bytes).await, 204);
    let (status, done) = fixture.commit(&again, &action).await;
    assert_eq!((status.as_u16(), &done["entry"]["size_bytes"]), (200, &json!(content.len())));
    fixture.collected().await;
    assert_eq!(fixture.files(), 1, "the parts are gone");
    let link = fixture.download(&done).await;
    let url = url(&link);
    let get = |name: &str, value: &str| {
        fixture.http.get(url).header(name.to_owned(), value.to_owned()).send()
    };
    let tail = get("range", &format!("bytes={}-", 2 * PART)).await.unwrap();
    assert_eq!(tail.status(), 206);
    assert_eq!(tail.bytes().await.unwrap(), content[2 * PART..]);
    let tag = format!("\"{}\"", sha256(&content));
    assert_eq!(get("if-match", &tag).await.unwrap().status(), 200);
    assert_eq!(get("if-match", "\"other\"").await.unwrap().status(), 412);
    assert_eq!(get("range", "bytes=99999999-").await.unwrap().status(), 416);
}

#[tokio::test]
async fn contents_inline_come_back_inline() {
    let fixture = Fixture::new().await;
    let one = fixture.done(put("one", b"one", None)).await;
    let empty = fixture.done(put("empty", b"", None)).await;
    let action = prepare("sent", b"sent");
    let prepared = fixture.done(action.clone()).await;
    fixture.send(url(&prepared), b"sent".to_vec()).await;
    let (_, sent) = fixture.commit(&prepared, &action).await;
    let directory = fixture.done(mkdir("d")).await;
    let wanted =
        |done: &Value| json!({"entry_id": done["entry"]["id"], "version_id": version(done)});
    let mut other_entry = wanted(&one);
    other_entry["entry_id"] = empty["entry"]["id"].clone();
    let asked = json!({"action": "downloads", "entries": [
        wanted(&one), wanted(&empty), wanted(&sent), wanted(&directory), other_entry,
    ]});
    let answer = fixture.done(asked).await;
    let results = answer["results"].as_array().unwrap();
    assert_eq!((&results[0]["content"], &results[0]["url"]), (&json!("b25l"), &json!("")));
    assert_eq!((&results[1]["content"], &results[1]["size_bytes"]), (&json!(""), &json!(0)));
    assert!(results[2].get("content").is_none() && !url(&results[2]).is_empty());
    for refused in &results[3..] {
        assert_eq!(refused["error"]["code"], "not_found");
    }
    // By URL as well, in part as well.
    let link = fixture.download(&one).await;
    let got = fixture.http.get(url(&link)).header("range", "bytes=1-").send().await.unwrap();
    assert_eq!((got.status().as_u16(), got.bytes().await.unwrap().as_ref()), (206, &b"ne"[..]));
    for wrong in [url(&link).replace("token=", "token=x"), url(&link).replace('?', "x?")] {
        assert_eq!(fixture.http.get(&wrong).send().await.unwrap().status(), 401);
    }
    // A URL to send to opens nothing to read.
    let opened = url(&prepared).replace("/uploads/", "/contents/").replace("/1?", "?");
    assert_eq!(fixture.http.get(&opened).send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn every_content_that_was_committed_can_be_had() {
    let fixture = Fixture::new().await;
    let first = fixture.done(put("a", b"first", None)).await;
    let second = fixture.done(put("a", b"second", Some(version(&first)))).await;
    fixture
        .done(json!({"action": "delete", "path": "a", "expected_version_id": version(&second),
                     "operation_id": id()}))
        .await;
    for (done, content) in [(first, "first"), (second, "second")] {
        let link = fixture.download(&done).await;
        let got = fixture.http.get(url(&link)).send().await.unwrap().text().await.unwrap();
        assert_eq!(got, content);
    }
}

#[tokio::test]
async fn a_hash_alone_gives_nobody_what_another_drive_holds() {
    let mut fixture = Fixture::new().await;
    let content = noise(70_000);
    let action = prepare("a", &content);
    let prepared = fixture.done(action.clone()).await;
    fixture.send(url(&prepared), content.clone()).await;
    assert_eq!(fixture.commit(&prepared, &action).await.0, 200);
    // The drive's own: nothing is to be sent.
    let again = prepare("b", &content);
    let prepared = fixture.done(again.clone()).await;
    assert_eq!(prepared["present"], true);
    assert_eq!(fixture.commit(&prepared, &again).await.0, 200);
    let mut wrong_size = prepare("c", &content);
    wrong_size["size_bytes"] = json!(69_999);
    assert_eq!(fixture.done(wrong_size).await["present"], false);
    fixture.drive = fixture.new_drive("Other", "write").await;
    let elsewhere = prepare("a", &content);
    let prepared = fixture.done(elsewhere.clone()).await;
    assert_eq!(prepared["present"], false);
    let (_, answer) = fixture.commit(&prepared, &elsewhere).await;
    assert_eq!(answer["error"]["code"], "content_missing");
    assert_eq!(fixture.send(url(&prepared), content).await, 204);
    assert_eq!(fixture.commit(&prepared, &elsewhere).await.0, 200);
    fixture.collected().await;
    assert_eq!(fixture.files(), 1);
}
