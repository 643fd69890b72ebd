//! What a request of storage asks for, by its method and path.

use axum::http::Method;
use percent_encoding::percent_decode_str;

use super::error::StorageError;
use super::name::ObjectName;

/// Words that stand where a bucket could; those that are not served here are known all the same.
const RESERVED: [&str; 9] =
    ["sign", "upload", "authenticated", "public", "info", "list", "list-v2", "move", "copy"];

/// Who may: a session, or whoever has a signed URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Session,
    Url,
}

/// A request; buckets are named, but not known to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// Stores an object; the body is the object.
    Store { bucket: String, name: ObjectName, by: By },
    /// Reads an object.
    Load { bucket: String, name: ObjectName, by: By },
    /// A small body and a small answer, for a session.
    Change(Change),
}

/// What is asked for beside the objects themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Removes an object.
    Remove { bucket: String, name: ObjectName },
    /// Removes the objects that the body names.
    RemoveMany { bucket: String },
    /// Makes a URL to read an object.
    Sign { bucket: String, name: ObjectName },
    /// Makes URLs to read the objects that the body names.
    SignMany { bucket: String },
    /// Makes a URL to store an object.
    SignUpload { bucket: String, name: ObjectName },
}

/// A kind of request that is served.
#[derive(Debug)]
struct Operation {
    method: Method,
    /// What stands before the bucket.
    area: &'static str,
    /// What it comes to; whether a name follows the bucket goes without saying.
    means: Means,
}

/// A [`Route`] without bucket and name.
#[derive(Debug, Clone, Copy)]
enum Means {
    OfObject(fn(String, ObjectName) -> Route),
    OfBucket(fn(String) -> Route),
}

const PLAIN: &str = "object/";
const AUTHENTICATED: &str = "object/authenticated/";
const SIGN: &str = "object/sign/";
const SIGN_UPLOAD: &str = "object/upload/sign/";
/// The longer ones first.
const AREAS: [&str; 4] = [SIGN_UPLOAD, AUTHENTICATED, SIGN, PLAIN];

/// Everything that is served: each needs a row in the access matrix.
static OPERATIONS: [Operation; 14] = [
    Operation { method: Method::POST, area: PLAIN, means: Means::OfObject(store) },
    Operation { method: Method::PUT, area: PLAIN, means: Means::OfObject(store) },
    Operation { method: Method::GET, area: PLAIN, means: Means::OfObject(load) },
    Operation { method: Method::HEAD, area: PLAIN, means: Means::OfObject(load) },
    Operation { method: Method::DELETE, area: PLAIN, means: Means::OfObject(remove) },
    Operation { method: Method::DELETE, area: PLAIN, means: Means::OfBucket(remove_many) },
    Operation { method: Method::GET, area: AUTHENTICATED, means: Means::OfObject(load) },
    Operation { method: Method::HEAD, area: AUTHENTICATED, means: Means::OfObject(load) },
    Operation { method: Method::POST, area: SIGN, means: Means::OfObject(sign) },
    Operation { method: Method::POST, area: SIGN, means: Means::OfBucket(sign_many) },
    Operation { method: Method::GET, area: SIGN, means: Means::OfObject(load_by_url) },
    Operation { method: Method::HEAD, area: SIGN, means: Means::OfObject(load_by_url) },
    Operation { method: Method::POST, area: SIGN_UPLOAD, means: Means::OfObject(sign_upload) },
    Operation { method: Method::PUT, area: SIGN_UPLOAD, means: Means::OfObject(store_by_url) },
];

fn store(bucket: String, name: ObjectName) -> Route {
    Route::Store { bucket, name, by: By::Session }
}

fn store_by_url(bucket: String, name: ObjectName) -> Route {
    Route::Store { bucket, name, by: By::Url }
}

fn load(bucket: String, name: ObjectName) -> Route {
    Route::Load { bucket, name, by: By::Session }
}

fn load_by_url(bucket: String, name: ObjectName) -> Route {
    Route::Load { bucket, name, by: By::Url }
}

fn remove(bucket: String, name: ObjectName) -> Route {
    Route::Change(Change::Remove { bucket, name })
}

fn remove_many(bucket: String) -> Route {
    Route::Change(Change::RemoveMany { bucket })
}

fn sign(bucket: String, name: ObjectName) -> Route {
    Route::Change(Change::Sign { bucket, name })
}

fn sign_many(bucket: String) -> Route {
    Route::Change(Change::SignMany { bucket })
}

fn sign_upload(bucket: String, name: ObjectName) -> Route {
    Route::Change(Change::SignUpload { bucket, name })
}

/// Everything that is served, e.g. `GET object/{bucket}/{name}`.
#[cfg(test)]
pub(super) fn listed() -> impl Iterator<Item = String> {
    OPERATIONS.iter().map(|Operation { method, area, means }| match means {
        Means::OfObject(_) => format!("{method} {area}{{bucket}}/{{name}}"),
        Means::OfBucket(_) => format!("{method} {area}{{bucket}}"),
    })
}

impl Route {
    /// `path` is what follows `/storage/v1/`, not decoded.
    pub(super) fn of(method: &Method, path: &str) -> Result<Self, StorageError> {
        let found = AREAS.into_iter().find_map(|area| Some((area, path.strip_prefix(area)?)));
        let (area, rest) = found.ok_or_else(StorageError::not_served)?;
        let (bucket, name) = split(rest)?;
        if area == PLAIN && RESERVED.contains(&&*bucket) {
            return Err(StorageError::not_served());
        }
        let fitting =
            OPERATIONS.iter().filter(|known| known.method == *method && known.area == area);
        for operation in fitting {
            match (operation.means, &name) {
                (Means::OfObject(route), Some(name)) => return Ok(route(bucket, name.clone())),
                (Means::OfBucket(route), None) => return Ok(route(bucket)),
                (Means::OfObject(_), None) | (Means::OfBucket(_), Some(_)) => {}
            }
        }
        Err(StorageError::not_served())
    }
}

/// A bucket and, after a slash, a name.
fn split(rest: &str) -> Result<(String, Option<ObjectName>), StorageError> {
    let (bucket, name) = match rest.split_once('/') {
        Some((bucket, name)) => (bucket, Some(ObjectName::from_path(name)?)),
        None => (rest, None),
    };
    let bucket = percent_decode_str(bucket).decode_utf8();
    Ok((bucket.map_err(|_| StorageError::no_bucket())?.into_owned(), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(method: &str, path: &str) -> Result<Route, StorageError> {
        Route::of(&method.parse().unwrap(), path)
    }

    fn named(name: &str) -> (String, ObjectName) {
        ("b".to_owned(), ObjectName::new(name).unwrap())
    }

    #[test]
    fn methods_and_paths_say_what_is_asked_for() {
        let (bucket, name) = named("d/x");
        let load = |by| Ok(Route::Load { bucket: bucket.clone(), name: name.clone(), by });
        let store = |by| Ok(Route::Store { bucket: bucket.clone(), name: name.clone(), by });
        for method in ["GET", "HEAD"] {
            assert_eq!(route(method, "object/b/d/x"), load(By::Session));
            assert_eq!(route(method, "object/authenticated/b/d/x"), load(By::Session));
            assert_eq!(route(method, "object/sign/b/d/x"), load(By::Url));
        }
        assert_eq!(route("POST", "object/b/d%2Fx"), store(By::Session));
        assert_eq!(route("PUT", "object/b/d/x"), store(By::Session));
        assert_eq!(route("PUT", "object/upload/sign/b/d/x"), store(By::Url));
        let b = || bucket.clone();
        let n = || name.clone();
        for (method, path, change) in [
            ("DELETE", "object/b", Change::RemoveMany { bucket: b() }),
            ("DELETE", "object/b/d/x", Change::Remove { bucket: b(), name: n() }),
            ("POST", "object/sign/b", Change::SignMany { bucket: b() }),
            ("POST", "object/sign/b/d/x", Change::Sign { bucket: b(), name: n() }),
            ("POST", "object/upload/sign/b/d/x", Change::SignUpload { bucket: b(), name: n() }),
        ] {
            assert_eq!(route(method, path), Ok(Route::Change(change)));
        }
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        for (method, path) in [
            ("GET", ""),
            ("GET", "object"),
            ("GET", "bucket"),
            ("GET", "object/public/b/x"),
            ("GET", "object/info/b/x"),
            ("POST", "object/list/b"),
            ("POST", "object/move"),
            ("POST", "upload/resumable"),
            ("POST", "object/b"),
            ("GET", "object/b"),
            ("PATCH", "object/b/x"),
            ("DELETE", "object/sign/b/x"),
            ("POST", "object/authenticated/b/x"),
            ("PUT", "object/sign/b/x"),
            ("GET", "object/upload/sign/b/x"),
        ] {
            assert_eq!(route(method, path), Err(StorageError::not_served()), "{method} {path}");
        }
        for path in ["object/b/", "object/b/../x", "object/b/%2e%2e/x", "object/b//x"] {
            assert!(route("GET", path).is_err_and(|error| error != StorageError::not_served()));
        }
    }
}
