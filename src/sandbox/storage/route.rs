//! What a request of storage asks for, by its method and path.

use axum::http::Method;
use percent_encoding::percent_decode_str;

use super::error::StorageError;
use super::name::ObjectName;

/// Words that stand where a bucket could; those that are not served here are known all the same.
const RESERVED: [&str; 9] =
    ["sign", "upload", "authenticated", "public", "info", "list", "list-v2", "move", "copy"];

/// A request; buckets are named, but not known to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// Stores an object; `replace`: whatever the request's headers say.
    Store { bucket: String, name: ObjectName, replace: bool },
    /// Reads an object.
    Load { bucket: String, name: ObjectName },
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
    /// Reads an object by a URL.
    LoadSigned { bucket: String, name: ObjectName },
    /// Stores an object by a URL.
    StoreSigned { bucket: String, name: ObjectName },
}

impl Route {
    /// `path` is what follows `/storage/v1/`, not decoded.
    pub(super) fn of(method: &Method, path: &str) -> Result<Self, StorageError> {
        let rest = path.strip_prefix("object/").ok_or_else(StorageError::not_served)?;
        let reads = matches!(*method, Method::GET | Method::HEAD);
        if let Some(rest) = rest.strip_prefix("upload/sign/") {
            return match (method, split(rest)?) {
                (&Method::POST, (bucket, Some(name))) => Ok(Self::SignUpload { bucket, name }),
                (&Method::PUT, (bucket, Some(name))) => Ok(Self::StoreSigned { bucket, name }),
                _ => Err(StorageError::not_served()),
            };
        }
        if let Some(rest) = rest.strip_prefix("sign/") {
            return match (method, split(rest)?) {
                (&Method::POST, (bucket, Some(name))) => Ok(Self::Sign { bucket, name }),
                (&Method::POST, (bucket, None)) => Ok(Self::SignMany { bucket }),
                (_, (bucket, Some(name))) if reads => Ok(Self::LoadSigned { bucket, name }),
                _ => Err(StorageError::not_served()),
            };
        }
        if let Some(rest) = rest.strip_prefix("authenticated/") {
            return match split(rest)? {
                (bucket, Some(name)) if reads => Ok(Self::Load { bucket, name }),
                _ => Err(StorageError::not_served()),
            };
        }
        match (method, split(rest)?) {
            (_, (bucket, _)) if RESERVED.contains(&&*bucket) => Err(StorageError::not_served()),
            (&Method::POST, (bucket, Some(name))) => {
                Ok(Self::Store { bucket, name, replace: false })
            }
            (&Method::PUT, (bucket, Some(name))) => Ok(Self::Store { bucket, name, replace: true }),
            (&Method::DELETE, (bucket, Some(name))) => Ok(Self::Remove { bucket, name }),
            (&Method::DELETE, (bucket, None)) => Ok(Self::RemoveMany { bucket }),
            (_, (bucket, Some(name))) if reads => Ok(Self::Load { bucket, name }),
            _ => Err(StorageError::not_served()),
        }
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
        let b = || (bucket.clone(), name.clone());
        let with = |make: fn((String, ObjectName)) -> Route| Ok(make(b()));
        for method in ["GET", "HEAD"] {
            let load = with(|(bucket, name)| Route::Load { bucket, name });
            assert_eq!(route(method, "object/b/d/x"), load);
            assert_eq!(route(method, "object/authenticated/b/d/x"), load);
            let signed = with(|(bucket, name)| Route::LoadSigned { bucket, name });
            assert_eq!(route(method, "object/sign/b/d/x"), signed);
        }
        let store = |replace| {
            let (bucket, name) = b();
            Ok(Route::Store { bucket, name, replace })
        };
        assert_eq!(route("POST", "object/b/d%2Fx"), store(false));
        assert_eq!(route("PUT", "object/b/d/x"), store(true));
        assert_eq!(
            route("DELETE", "object/b/d/x"),
            with(|(bucket, name)| Route::Remove { bucket, name })
        );
        assert_eq!(route("DELETE", "object/b"), Ok(Route::RemoveMany { bucket: "b".into() }));
        assert_eq!(
            route("POST", "object/sign/b/d/x"),
            with(|(bucket, name)| Route::Sign { bucket, name })
        );
        assert_eq!(route("POST", "object/sign/b"), Ok(Route::SignMany { bucket: "b".into() }));
        assert_eq!(
            route("POST", "object/upload/sign/b/d/x"),
            with(|(bucket, name)| Route::SignUpload { bucket, name })
        );
        assert_eq!(
            route("PUT", "object/upload/sign/b/d/x"),
            with(|(bucket, name)| Route::StoreSigned { bucket, name })
        );
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
