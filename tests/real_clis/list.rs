//! The list of stories: what must run, what is skipped and why, and what became of each.

use std::fmt::Write;
use std::time::Duration;

use panorama_gateway::providers::ProviderId;

use crate::stories::Story;

/// A line of the list.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) story: Story,
    pub(crate) cli: ProviderId,
    /// Why it is not run.
    pub(crate) skip: Option<String>,
}

/// How a story ended.
#[derive(Debug)]
pub(crate) enum Verdict {
    Passed(Duration),
    Failed(Duration, String),
    Skipped,
}

/// The checked-in list; it must name every story with every CLI once, in order.
pub(crate) fn read() -> Vec<Entry> {
    let text = include_str!("../real_clis.list");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let entries: Vec<Entry> = lines.map(entry).collect();
    let listed: Vec<_> = entries.iter().map(|entry| (entry.story, entry.cli)).collect();
    let with_all = |story| ProviderId::ALL.map(|cli| (story, cli));
    let expected: Vec<_> = Story::ALL.into_iter().flat_map(with_all).collect();
    assert_eq!(listed, expected, "tests/real_clis.list does not name what there is");
    entries
}

/// `story cli run` or `story cli skip: reason`.
fn entry(line: &str) -> Entry {
    let mut words = line.splitn(3, ' ');
    let mut word = || words.next().map(str::trim).unwrap_or_default();
    let (story, cli, what) = (word(), word(), word());
    let skip = match what.strip_prefix("skip: ") {
        Some(reason) => Some(reason.to_owned()),
        None if what == "run" => None,
        None => panic!("tests/real_clis.list: {line}"),
    };
    let story = Story::ALL.into_iter().find(|known| known.name() == story);
    let story = story.unwrap_or_else(|| panic!("tests/real_clis.list: no such story: {line}"));
    Entry { story, cli: ProviderId::parse(cli).expect(line), skip }
}

/// For people: a line each, and how many went wrong.
pub(crate) fn table(lines: &mut [(Entry, Verdict)]) -> (String, usize) {
    let place = |entry: &Entry| Story::ALL.iter().position(|story| *story == entry.story);
    lines.sort_by_key(|(entry, _)| (place(entry), entry.cli));
    let mut text = String::new();
    let mut failures = 0;
    for (entry, verdict) in lines {
        let what = match verdict {
            Verdict::Passed(took) => format!("ok      {:6.1} s", took.as_secs_f64()),
            Verdict::Failed(took, why) => {
                failures += 1;
                // Rows hold prompts of any length.
                let why: String = why.chars().take(4_000).collect();
                format!("FAILED  {:6.1} s  {why}", took.as_secs_f64())
            }
            Verdict::Skipped => format!("skipped: {}", entry.skip.as_deref().unwrap_or_default()),
        };
        let _ = writeln!(text, "{:<20} {:<12} {what}", entry.story.name(), entry.cli.as_str());
    }
    (text, failures)
}
