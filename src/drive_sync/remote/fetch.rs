//! Fetching contents: small ones many at a time, large ones as streams that go on where they stopped.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, IF_MATCH, RANGE};

use super::super::ports::{Download, FsError, RemoteError, StageWriter};
use super::super::wire::{self, Action, DownloadResult, MAX_INLINE, Wanted};
use super::RemoteDrive;
use super::answer::{broken, refusal};
use super::link::{Link, refusal_of, retry_after, unreachable};

/// Contents that come at the same time.
const STREAMS: usize = 4;

/// Requests that are under way at the same time, so that the server works while the disk does.
const REQUESTS: usize = 3;
/// What one of them asks for, at most: so much may be in memory for each.
const ENTRIES: usize = 100;
const BYTES: u64 = 512 << 10;

/// Fetches contents into their writers.
pub(super) fn fetch(
    drive: &RemoteDrive,
    mut downloads: Vec<Download<'_>>,
) -> Vec<Result<(), RemoteError>> {
    let mut results: Vec<Result<(), RemoteError>> =
        downloads.iter().map(|_| Err(RemoteError::Stopped)).collect();
    let mut streams = Vec::new();
    let pieces = pieces(&mut downloads, &mut results);
    let done = drive.link.wait(async {
        let mut waiting = pieces.into_iter();
        let mut running = FuturesUnordered::new();
        running.extend(waiting.by_ref().take(REQUESTS).map(|piece| fetch_some(drive, piece)));
        while let Some(left) = running.next().await {
            streams.extend(left);
            running.extend(waiting.next().map(|piece| fetch_some(drive, piece)));
        }
        stream_all(&drive.link, streams).await;
        Ok(())
    });
    // What had no answer by then has been stopped from the beginning.
    done.ok();
    results
}

/// A download, and where its result goes.
type Asked<'d, 'a> = (&'d mut Download<'a>, &'d mut Result<(), RemoteError>);

/// What each request asks for.
fn pieces<'d, 'a>(
    downloads: &'d mut [Download<'a>],
    results: &'d mut [Result<(), RemoteError>],
) -> Vec<Vec<Asked<'d, 'a>>> {
    let mut pieces: Vec<Vec<Asked<'d, 'a>>> = Vec::new();
    let mut bytes = 0;
    for (download, result) in downloads.iter_mut().zip(results) {
        // A large one does not come with the answer.
        let size = Some(download.content.size).filter(|size| *size <= MAX_INLINE as u64);
        let size = size.unwrap_or(0);
        match pieces.last_mut() {
            Some(last) if last.len() < ENTRIES && bytes + size <= BYTES => {
                bytes += size;
                last.push((download, result));
            }
            _ => {
                bytes = size;
                pieces.push(vec![(download, result)]);
            }
        }
    }
    pieces
}

/// Asks for some, and writes what comes at once. Gives those that are to be streamed.
async fn fetch_some<'d, 'a>(
    drive: &RemoteDrive,
    downloads: Vec<Asked<'d, 'a>>,
) -> Vec<Streamed<'d, 'a>> {
    let entries = downloads
        .iter()
        .map(|(wanted, _)| Wanted {
            entry_id: wanted.id.clone(),
            version_id: wanted.version.clone(),
        })
        .collect();
    let asked = drive
        .link
        .ask::<wire::Downloads>(Action::Downloads { drive_id: drive.drive_id(), entries })
        .await
        .and_then(|answer| {
            if answer.results.len() == downloads.len() {
                Ok(answer)
            } else {
                Err(broken("a short list of downloads"))
            }
        });
    let mut streams = Vec::new();
    match asked {
        Err(error) => {
            for (_, result) in downloads {
                *result = Err(error.clone());
            }
        }
        Ok(answer) => {
            for ((download, result), place) in downloads.into_iter().zip(answer.results) {
                match place {
                    DownloadResult::Refused(refused) => *result = Err(refusal(refused.error, None)),
                    DownloadResult::Found(wire::Download { content: Some(content), .. }) => {
                        *result = put(download.into, &content.0);
                    }
                    DownloadResult::Found(place) => streams.push((download, result, place)),
                }
            }
        }
    }
    streams
}

/// A content that came whole.
fn put(into: &mut dyn StageWriter, bytes: &[u8]) -> Result<(), RemoteError> {
    if into.written() > 0 {
        into.restart().map_err(|error| local(&error))?;
    }
    into.write(bytes).map_err(|error| local(&error))
}

type Streamed<'d, 'a> = (&'d mut Download<'a>, &'d mut Result<(), RemoteError>, wire::Download);

async fn stream_all(link: &Link, wanted: Vec<Streamed<'_, '_>>) {
    let mut waiting = wanted.into_iter();
    let mut running = FuturesUnordered::new();
    running.extend(waiting.by_ref().take(STREAMS).map(|one| stream_one(link, one)));
    while running.next().await.is_some() {
        running.extend(waiting.next().map(|one| stream_one(link, one)));
    }
}

async fn stream_one(link: &Link, (download, result, place): Streamed<'_, '_>) {
    *result = stream(link, download.into, &place).await;
}

async fn stream(
    link: &Link,
    into: &mut dyn StageWriter,
    place: &wire::Download,
) -> Result<(), RemoteError> {
    let from = into.written();
    if from == place.size_bytes {
        return Ok(());
    }
    let mut request = link.client.get(link.url(&place.url)?).headers(headers_of(&place.headers)?);
    if from > 0 {
        request = request
            .header(RANGE, format!("bytes={from}-"))
            .header(IF_MATCH, format!("\"{}\"", place.content_sha256));
    }
    let mut response = link.patiently(request.send()).await?.map_err(unreachable)?;
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {}
        StatusCode::OK if from == 0 => {}
        // It does not go on where we stopped.
        StatusCode::OK => into.restart().map_err(|error| local(&error))?,
        StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE => {
            // What we have of it belongs to nothing that is there: the next try begins anew.
            into.restart().map_err(|error| local(&error))?;
            return Err(RemoteError::Conflict { current: None });
        }
        StatusCode::NOT_FOUND => return Err(RemoteError::Conflict { current: None }),
        // Also an address that has ended: the next try gets a new one.
        status => return Err(refusal_of(status, &[], retry_after(&response))),
    }
    while let Some(piece) = link.patiently(response.chunk()).await?.map_err(unreachable)? {
        into.write(&piece).map_err(|error| local(&error))?;
    }
    if into.written() == place.size_bytes { Ok(()) } else { Err(broken("a content cut short")) }
}

/// Headers that the server wants to have sent along.
pub(super) fn headers_of(
    wanted: &std::collections::BTreeMap<String, String>,
) -> Result<HeaderMap, RemoteError> {
    wanted
        .iter()
        .map(|(name, value)| {
            let name = HeaderName::try_from(name).map_err(|_| broken("a header's name"))?;
            let value = HeaderValue::try_from(value).map_err(|_| broken("a header"))?;
            Ok((name, value))
        })
        .collect()
}

fn local(error: &FsError) -> RemoteError {
    if matches!(error, FsError::Full) {
        RemoteError::Full
    } else {
        RemoteError::Local(error.to_string())
    }
}
