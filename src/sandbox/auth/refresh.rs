//! Sessions and the families of their refresh tokens.
//!
//! A refresh token works once, but two reuses are allowed and give the live token again, since an
//! answer may have been lost: of the live token's parent at any time, and of an older one within
//! the reuse interval. Any other reuse means that two hold the family: the session ends.
//!
//! Only hashes are stored. So that a lost token can be given again all the same, each token is
//! derived from its parent under a key of this installation: whoever shows the parent lets us
//! compute the child, and nobody can without the key. The first of a family is random.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::HEXLOWER;
use hmac::{Hmac, Mac as _};
use rusqlite::{Connection, OptionalExtension as _, params};
use sha2::{Digest as _, Sha256};

use crate::model::{GatewayId, TeamId};
use crate::sandbox::access::Identity;
use crate::sandbox::jwt;
use crate::sandbox::rules::{Rule, Rules};

/// How many rotations may lie between an older token that is shown again and the live one.
const MAX_STEPS: usize = 64;

/// Derives each refresh token from its parent.
#[derive(Clone)]
pub(in crate::sandbox) struct RefreshChain {
    keyed: Hmac<Sha256>,
}

impl std::fmt::Debug for RefreshChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RefreshChain")
    }
}

impl RefreshChain {
    /// Under a key of its own that follows from the installation's secret.
    pub(in crate::sandbox) fn new(secret: &[u8]) -> Self {
        let mut mac = jwt::keyed(secret);
        mac.update(b"panorama sandbox refresh tokens 1");
        Self { keyed: jwt::keyed(&mac.finalize().into_bytes()) }
    }

    fn child(&self, parent: &str) -> String {
        let mut mac = self.keyed.clone();
        mac.update(parent.as_bytes());
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }

    /// The token whose hash is `live`, if it descends from `token`.
    fn descendant(&self, token: &str, live: &str) -> Option<String> {
        let mut token = self.child(token);
        for _ in 0..MAX_STEPS {
            if sha256_hex(&token) == live {
                return Some(token);
            }
            token = self.child(&token);
        }
        None
    }
}

/// A session as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sandbox) struct SessionRow {
    pub(in crate::sandbox) identity: Identity,
    /// Microseconds since 1970.
    pub(in crate::sandbox) created_at: i64,
    pub(in crate::sandbox) ended: bool,
}

/// What became of a refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rotation {
    /// The live token, new or given again.
    Live { session: SessionRow, refresh_token: String },
    /// No such token, or its session is over.
    NotFound,
    /// Used before; the session was ended for it.
    AlreadyUsed,
}

/// SHA-256 of a secret text, in hex: how codes and tokens are stored.
pub(in crate::sandbox) fn sha256_hex(text: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(text))
}

/// Stores a new session with the first refresh token of its family.
pub(in crate::sandbox) fn open_session(
    connection: &Connection,
    identity: &Identity,
    refresh_token: &str,
    now: i64,
) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO sessions (id, user_id, gateway_id, team_id, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            identity.session_id,
            identity.user_id,
            identity.gateway_id.as_str(),
            identity.team_id.as_str(),
            now
        ],
    )?;
    insert_token(connection, &identity.session_id, refresh_token, None, now)
}

/// A session by its id.
pub(in crate::sandbox) fn session(
    connection: &Connection,
    id: &str,
) -> rusqlite::Result<Option<SessionRow>> {
    connection
        .query_row(
            "SELECT id, user_id, gateway_id, team_id, created_at, ended_at FROM sessions
             WHERE id = ?1",
            [id],
            |row| {
                Ok(SessionRow {
                    identity: Identity {
                        session_id: row.get(0)?,
                        user_id: row.get(1)?,
                        gateway_id: GatewayId::new(row.get::<_, String>(2)?),
                        team_id: TeamId::new(row.get::<_, String>(3)?),
                    },
                    created_at: row.get(4)?,
                    ended: row.get::<_, Option<i64>>(5)?.is_some(),
                })
            },
        )
        .optional()
}

/// Ends a session: none of its refresh tokens works any more. Access tokens last until they
/// expire.
pub(super) fn end_session(connection: &Connection, id: &str, now: i64) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE sessions SET ended_at = ?2 WHERE id = ?1 AND ended_at IS NULL",
        params![id, now],
    )?;
    connection.execute(
        "UPDATE refresh_tokens SET revoked_at = ?2 WHERE session_id = ?1 AND revoked_at IS NULL",
        params![id, now],
    )?;
    Ok(())
}

/// Ends every session of a gateway.
pub(in crate::sandbox) fn end_sessions_of(
    connection: &Connection,
    gateway_id: &str,
    now: i64,
) -> rusqlite::Result<()> {
    let mut open =
        connection.prepare("SELECT id FROM sessions WHERE gateway_id = ?1 AND ended_at IS NULL")?;
    let ids = open.query_map([gateway_id], |row| row.get(0))?;
    for id in ids.collect::<Result<Vec<String>, _>>()? {
        end_session(connection, &id, now)?;
    }
    Ok(())
}

/// Uses a refresh token; to be run in one write transaction, and committed whatever comes out.
pub(super) fn rotate(
    connection: &Connection,
    chain: &RefreshChain,
    shown: &str,
    now: i64,
    (reuse_interval, rules): (i64, Rules),
) -> rusqlite::Result<Rotation> {
    let shown_hash = sha256_hex(shown);
    let known: Option<(String, Option<i64>)> = connection
        .query_row(
            "SELECT session_id, revoked_at FROM refresh_tokens WHERE token_sha256 = ?1",
            [&shown_hash],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let Some((session_id, revoked_at)) = known else { return Ok(Rotation::NotFound) };
    let is_open = |session: &SessionRow| !session.ended || !rules.hold(Rule::Refresh);
    let Some(session) = session(connection, &session_id)?.filter(is_open) else {
        return Ok(Rotation::NotFound);
    };
    let Some(revoked_at) = revoked_at else {
        let refresh_token = chain.child(shown);
        connection.execute(
            "UPDATE refresh_tokens SET revoked_at = ?2 WHERE token_sha256 = ?1",
            params![shown_hash, now],
        )?;
        insert_token(connection, &session_id, &refresh_token, Some(&shown_hash), now)?;
        return Ok(Rotation::Live { session, refresh_token });
    };
    let live: Option<(String, Option<String>)> = connection
        .query_row(
            "SELECT token_sha256, parent_sha256 FROM refresh_tokens
             WHERE session_id = ?1 AND revoked_at IS NULL",
            [&session_id],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    if let Some((live, parent)) = live {
        let is_parent = parent.as_deref() == Some(shown_hash.as_str());
        let is_recent = now.saturating_sub(revoked_at) <= reuse_interval;
        if (is_parent || is_recent)
            && let Some(refresh_token) = chain.descendant(shown, &live)
        {
            return Ok(Rotation::Live { session, refresh_token });
        }
    }
    end_session(connection, &session_id, now)?;
    Ok(Rotation::AlreadyUsed)
}

fn insert_token(
    connection: &Connection,
    session_id: &str,
    token: &str,
    parent: Option<&str>,
    now: i64,
) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO refresh_tokens (token_sha256, session_id, parent_sha256, created_at)
         VALUES (?1, ?2, ?3, ?4)",
        params![sha256_hex(token), session_id, parent, now],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const REUSE: i64 = 10 * SECOND;

    struct Family {
        connection: Connection,
        chain: RefreshChain,
    }

    impl Family {
        fn new() -> Self {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch(include_str!("../store/0001.sql")).unwrap();
            let identity = Identity {
                user_id: "u".into(),
                session_id: "s".into(),
                gateway_id: GatewayId::new("g"),
                team_id: TeamId::new("t"),
            };
            open_session(&connection, &identity, "first", 0).unwrap();
            Self { connection, chain: RefreshChain::new(b"secret") }
        }

        fn rotate(&self, token: &str, at_second: i64) -> Rotation {
            rotate(
                &self.connection,
                &self.chain,
                token,
                at_second * SECOND,
                (REUSE, Rules::default()),
            )
            .unwrap()
        }

        fn live(&self, token: &str, at_second: i64) -> String {
            match self.rotate(token, at_second) {
                Rotation::Live { refresh_token, .. } => refresh_token,
                other @ (Rotation::NotFound | Rotation::AlreadyUsed) => panic!("{other:?}"),
            }
        }

        fn ended(&self) -> bool {
            session(&self.connection, "s").unwrap().unwrap().ended
        }
    }

    #[test]
    fn each_use_gives_another_token() {
        let family = Family::new();
        let second = family.live("first", 1);
        let third = family.live(&second, 2);
        assert_eq!(third.len(), 43);
        assert!(third != second && second != "first");
    }

    #[test]
    fn the_parent_of_the_live_token_gives_the_same_child_at_any_time() {
        let family = Family::new();
        let child = family.live("first", 1);
        assert_eq!(family.live("first", 2), child);
        assert_eq!(family.live("first", 1_000_000), child);
        assert!(!family.ended());
    }

    #[test]
    fn an_older_token_gives_the_live_one_within_the_interval() {
        let family = Family::new();
        let second = family.live("first", 100);
        let third = family.live(&second, 101);
        let fourth = family.live(&third, 102);
        assert_eq!(family.live("first", 110), fourth);
        assert_eq!(family.live(&second, 111), fourth);
    }

    #[test]
    fn an_older_token_ends_the_session_after_the_interval() {
        let family = Family::new();
        let second = family.live("first", 100);
        let third = family.live(&second, 101);
        assert_eq!(family.rotate("first", 111), Rotation::AlreadyUsed);
        assert!(family.ended());
        for token in ["first", &second, &third] {
            assert_eq!(family.rotate(token, 112), Rotation::NotFound);
        }
    }

    #[test]
    fn unknown_tokens_change_nothing() {
        let family = Family::new();
        assert_eq!(family.rotate("somebody else's", 1), Rotation::NotFound);
        assert!(!family.ended());
    }

    #[test]
    fn tokens_cannot_be_derived_without_the_key() {
        let other = RefreshChain::new(b"another secret");
        assert_ne!(other.child("first"), RefreshChain::new(b"secret").child("first"));
    }

    #[test]
    fn no_token_is_stored() {
        let family = Family::new();
        let second = family.live("first", 1);
        let stored: Vec<String> = family
            .connection
            .prepare("SELECT token_sha256 || coalesce(parent_sha256, '') FROM refresh_tokens")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(stored.len(), 2);
        assert!(stored.iter().all(|text| !text.contains("first") && !text.contains(&second)));
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256_hex(""), empty);
    }
}
