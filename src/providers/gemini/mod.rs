//! Gemini CLI: its flags, its command line, its answers.

mod agent;
mod decode;
mod failure;
mod flags;
mod plan;
mod printed;

use super::agent::{AgentReader, AgentRequest};
use super::{Flags, Installed, Left, ModelRequest, Outcome, Plan, PlanError, Provider, ProviderId};
use crate::model::ProviderSupports;

/// Google's Gemini CLI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gemini;

impl Provider for Gemini {
    fn id(&self) -> ProviderId {
        ProviderId::Gemini
    }

    fn help_args(&self) -> &'static [&'static str] {
        &["--help"]
    }

    fn flags(&self, help: Option<&str>) -> Flags {
        flags::of(help)
    }

    /// Not `--list-extensions`: that wants a login, and since 0.61 prints nothing at all.
    fn extension_args(&self) -> Option<&'static [&'static str]> {
        Some(&["extensions", "list"])
    }

    fn extensions(&self, listing: &str) -> Vec<String> {
        flags::extensions(listing)
    }

    /// One process instead of two, which also ends when it is told to.
    fn probe_env(&self) -> &'static [(&'static str, &'static str)] {
        &[plan::NO_RELAUNCH]
    }

    fn supports(&self, installed: &Installed) -> ProviderSupports {
        ProviderSupports {
            output_schema: false,
            stream_json: installed.has(flags::OUTPUT_FORMAT),
            tool_disable: installed.extensions.is_empty(),
        }
    }

    fn plan(&self, request: &ModelRequest, installed: &Installed) -> Result<Plan, PlanError> {
        plan::plan(request, installed)
    }

    fn decode(&self, request: &ModelRequest, plan: &Plan, left: &Left) -> Outcome {
        decode::decode(request, plan, left)
    }

    fn continues_sessions(&self) -> bool {
        false
    }

    fn full_control(&self, installed: &Installed, root: bool, guest: bool) -> Result<(), String> {
        agent::full_control(installed, root, guest)
    }

    fn agent_plan(&self, request: &AgentRequest, installed: &Installed) -> Result<Plan, PlanError> {
        agent::plan(request, installed)
    }

    fn agent_reader(&self, request: &AgentRequest, plan: &Plan) -> Box<dyn AgentReader> {
        agent::reader(request, plan)
    }
}

/// How the CLI was told to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Printing {
    /// The answer alone.
    Text,
    /// One object at the end.
    Json,
    /// An event a line.
    Events,
}

impl Printing {
    /// The word after `--output-format`.
    fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Events => "stream-json",
        }
    }

    /// What a plan's command line asks for; without the flag the CLI prints text.
    fn of(plan: &Plan) -> Self {
        let mut args = plan.args.iter().skip_while(|arg| *arg != plan::OUTPUT_FORMAT);
        let word = args.nth(1).map(String::as_str);
        [Self::Json, Self::Events]
            .into_iter()
            .find(|printing| word == Some(printing.as_str()))
            .unwrap_or(Self::Text)
    }
}

/// A text without its terminal colours.
fn uncoloured(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, ';' | '?'));
        let mut chars = rest.chars();
        if chars.next().is_some_and(|c| c.is_ascii_alphabetic()) {
            rest = chars.as_str();
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests;
