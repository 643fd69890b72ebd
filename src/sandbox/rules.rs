//! The rules of access that are code, by name. The product always enforces all of them; tests take
//! one away at a time and see which request of the access matrix then has another outcome.
//!
//! Rights on tables are data and have no name here: see `store::tables`.

#[cfg(test)]
use super::Caller;
#[cfg(test)]
use crate::model::{GatewayId, TeamId};

/// What a request must pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "some need code of their own to be taken away"))]
pub(crate) enum Rule {
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
    /// Tokens are in force.
    Expiry,
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
        let gateway = |gateway_id, team_id| Caller::Gateway {
            user_id: String::new(),
            session_id: String::new(),
            gateway_id,
            team_id,
        };
        match (self.broken, caller) {
            (Some(Rule::Session), Caller::Anonymous) => {
                gateway(GatewayId::new(""), TeamId::new(""))
            }
            (Some(Rule::Kind), Caller::Drive { gateway_id, team_id, .. }) => {
                gateway(gateway_id, team_id)
            }
            (_, caller) => caller,
        }
    }
}
