//! Fetching contents: small ones many at a time, large ones as streams that go on where they stopped.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, IF_MATCH, RANGE};

use super::super::ports::{Download, FsError, RemoteError, StageWriter};
use super::super::wire::{self, Action, DownloadResult, MAX_BATCH, Wanted};
use super::RemoteDrive;
use super::answer::{broken, refusal};
use super::link::{Link, refusal_of, retry_after, unreachable};

/// Contents that come at the same time.
const STREAMS: usize = 4;

/// Fetches contents into their writers.
pub(super) fn fetch(
    drive: &RemoteDrive,
    mut downloads: Vec<Download<'_>>,
) -> Vec<Result<(), RemoteError>> {
    downloads.chunks_mut(MAX_BATCH).flat_map(|some| fetch_some(drive, some)).collect()
}

fn fetch_some(drive: &RemoteDrive, downloads: &mut [Download<'_>]) -> Vec<Result<(), RemoteError>> {
    let entries = downloads
        .iter()
        .map(|wanted| Wanted { entry_id: wanted.id.clone(), version_id: wanted.version.clone() })
        .collect();
    let asked = drive
        .link
        .call::<wire::Downloads>(Action::Downloads { drive_id: drive.drive_id(), entries })
        .and_then(|answer| {
            if answer.results.len() == downloads.len() {
                Ok(answer)
            } else {
                Err(broken("a short list of downloads"))
            }
        });
    let places = match asked {
        Ok(answer) => answer.results,
        Err(error) => return downloads.iter().map(|_| Err(error.clone())).collect(),
    };
    let mut results: Vec<Result<(), RemoteError>> = downloads.iter().map(|_| Ok(())).collect();
    let mut streams = Vec::new();
    for (index, (download, place)) in downloads.iter_mut().zip(places).enumerate() {
        match place {
            DownloadResult::Refused(refused) => results[index] = Err(refusal(refused.error, None)),
            DownloadResult::Found(wire::Download { content: Some(content), .. }) => {
                results[index] = put(download.into, &content.0);
            }
            DownloadResult::Found(place) => streams.push((index, download, place)),
        }
    }
    for (index, result) in stream_all(&drive.link, streams) {
        results[index] = result;
    }
    results
}

/// A content that came whole.
fn put(into: &mut dyn StageWriter, bytes: &[u8]) -> Result<(), RemoteError> {
    if into.written() > 0 {
        into.restart().map_err(|error| local(&error))?;
    }
    into.write(bytes).map_err(|error| local(&error))
}

type Streamed<'d, 'a> = (usize, &'d mut Download<'a>, wire::Download);

fn stream_all(link: &Link, wanted: Vec<Streamed<'_, '_>>) -> Vec<(usize, Result<(), RemoteError>)> {
    let mut results = Vec::with_capacity(wanted.len());
    let mut left: Vec<usize> = wanted.iter().map(|(index, ..)| *index).collect();
    let done = link.wait(async {
        let mut waiting = wanted.into_iter();
        let mut running = FuturesUnordered::new();
        running.extend(waiting.by_ref().take(STREAMS).map(|one| stream_one(link, one)));
        while let Some(done) = running.next().await {
            results.push(done);
            running.extend(waiting.next().map(|one| stream_one(link, one)));
        }
        Ok(())
    });
    if let Err(stopped) = done {
        left.retain(|index| !results.iter().any(|(done, _)| done == index));
        results.extend(left.into_iter().map(|index| (index, Err(stopped.clone()))));
    }
    results
}

async fn stream_one(
    link: &Link,
    (index, download, place): Streamed<'_, '_>,
) -> (usize, Result<(), RemoteError>) {
    (index, stream(link, download.into, &place).await)
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
