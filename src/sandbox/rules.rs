//! The rules of access that are code, by name. The product always enforces all of them; tests take
//! one away at a time and see which request of the access matrix then has another outcome.
//!
//! Rights on tables are data and have no name here: see `store::tables`.

#[cfg(test)]
use super::Caller;
#[cfg(test)]
use crate::model::{GatewayId, TeamId};

/// The rules, and for tests a list of them, so that none goes untested.
macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a request must pass.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[cfg_attr(not(test), expect(dead_code, reason = "some need code of their own to be taken away"))]
        pub(crate) enum Rule {
            $($(#[$doc])* $name,)*
        }

        #[cfg(test)]
        impl Rule {
            /// All of them.
            pub(super) const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

rules! {
    /// `Host` is one of ours.
    Host,
    /// No page from elsewhere is behind an operator's request.
    Origin,
    /// `apikey` is the project's.
    Key,
    /// Who shows no token is nobody.
    Session,
    /// Tokens bear our signature.
    Signature,
    /// Tokens are in force until they end.
    Expiry,
    /// And from when they begin.
    Beginning,
    /// A drive token is good for drive sync only.
    Kind,
    /// The session of a token was not ended, where auth is asked.
    OpenSession,
    /// Who reuses an old refresh token ends the session.
    Reuse,
    /// The admin API is the operator's.
    Admin,
    /// The team's toggle is the operator's.
    Toggle,
    /// The operator toggles gateways of their own team.
    ToggleTeam,
    /// A pairing code works once.
    CodeOnce,
    /// A pairing code works for a while.
    CodeExpiry,
    /// A VM's bootstrap token works once.
    VmTokenOnce,
    /// A VM's bootstrap token works for a while.
    VmTokenExpiry,
    /// A heartbeat is that of a gateway in the token's team.
    BeatTeam,
    /// A run is finalised by its team.
    RunTeam,
    /// A run is finalised by its gateway.
    RunGateway,
    /// And only while its subagent is that gateway's as well.
    RunAssigned,
    /// A run that is over stays as it is.
    RunOver,
    /// An ended session has no refresh token.
    Refresh,
    /// Pairing codes are guessed a few times a minute.
    Guesses,
    /// An object is that of the team whose session asks.
    ObjectTeam,
    /// A bucket is one of the schema's.
    Bucket,
    /// What is there stays, unless it is to be replaced.
    ObjectStays,
    /// An object is no larger than its bucket allows.
    ObjectSize,
    /// Tokens of signed URLs bear our signature.
    UrlSignature,
    /// They are in force.
    UrlExpiry,
    /// They are good for one bucket.
    UrlBucket,
    /// And for one name in it.
    UrlName,
    /// Only a token to read lets its bearer read.
    UrlReads,
    /// Only a token to store lets its bearer store.
    UrlStores,
    /// Only a token to replace lets its bearer replace what is there.
    UrlReplaces,
    /// Drive sync takes drive tokens only.
    DriveKind,
    /// Of a gateway that is paired.
    DrivePaired,
    /// A drive is its team's.
    DriveTeam,
    /// A drive is for the gateways that it is meant for.
    DriveAccess,
    /// Who may only read a drive does not change it.
    DriveReadOnly,
    /// A version is fetched by its drive and entry.
    DriveVersion,
    /// A hash gives nobody what another drive holds.
    DriveContent,
    /// A drive's URL is good for one purpose.
    DriveUrlPurpose,
    /// And for one content.
    DriveUrlName,
    /// A change is told to those who may read the row.
    Reader,
    /// A channel ends with its token.
    ChannelExpiry,
    /// A channel has the rights of the last token that it was given.
    Renewal,
}

/// Which of them hold: all.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rules {
    /// But this one.
    #[cfg(test)]
    pub(crate) broken: Option<Rule>,
}

#[cfg(not(test))]
impl Rules {
    /// Whether a rule is in force: yes.
    #[expect(clippy::unused_self, reason = "tests ask it")]
    pub(super) const fn hold(self, _: Rule) -> bool {
        true
    }
}

#[cfg(test)]
impl Rules {
    pub(super) fn hold(self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }

    /// The caller that this one would be without the rule that tells them apart.
    pub(super) fn promoted(self, caller: Caller) -> Caller {
        if self.hold(Rule::Session) || caller != Caller::Anonymous {
            return caller;
        }
        Caller::Gateway {
            user_id: String::new(),
            session_id: String::new(),
            gateway_id: GatewayId::new(""),
            team_id: TeamId::new(""),
        }
    }
}
