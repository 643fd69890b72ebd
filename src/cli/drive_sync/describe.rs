//! The report on drives for people: a line for a drive that is well, more where somebody is needed.

use jiff::Timestamp;

use crate::cli::{age, printable};
use crate::drive_sync::keeper::report::{
    Counts, DriveReport, DriveState, FirstCopy, Moving, Phase, Report, Unsyncable,
};

const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
/// Entries of a list that are told one by one.
const TOLD: usize = 10;
/// Contents on their way that are told one by one.
const MOVING: usize = 4;

/// All drives; with `verbose` what is in order, too.
pub(super) fn report(report: &Report, verbose: bool, now: Timestamp) -> String {
    let mut page = Page { text: String::new(), now };
    if let Some(problem) = &report.problem {
        page.put("", &format!("problem: {problem}"));
        if let Some(left) = page.until(report.retry_at.as_deref()) {
            page.put("  ", &format!("tried again {left}"));
        }
    }
    if report.drives.is_empty() {
        page.put("", "no drives");
    }
    for drive in &report.drives {
        page.drive(drive, verbose);
    }
    page.text
}

/// How far a copy or other work is, in one line; `None` when there is none.
pub(super) fn progress(drive: &DriveReport) -> Option<String> {
    match (&drive.first_copy, drive.state) {
        (Some(copy), DriveState::Syncing) if copy.files > 0 => {
            Some(format!("first copy: {}", first_copy(copy)))
        }
        (_, DriveState::Starting) => match drive.doing {
            Phase::Looking => Some("looking through the folder".to_owned()),
            Phase::Listing => Some(listing(drive)),
            Phase::Resting | Phase::Asking | Phase::Working => Some("starting".to_owned()),
        },
        (_, DriveState::Syncing) => Some(
            to_do(&drive.pending).map_or("syncing".to_owned(), |left| format!("syncing: {left}")),
        ),
        (
            _,
            DriveState::UpToDate | DriveState::Held | DriveState::Waiting | DriveState::Stopped,
        ) => None,
    }
}

struct Page {
    text: String,
    now: Timestamp,
}

impl Page {
    fn put(&mut self, indent: &str, words: &str) {
        self.text.push_str(indent);
        self.text.push_str(&printable::line(words));
        self.text.push('\n');
    }

    fn fact(&mut self, name: &str, words: &str) {
        self.put("  ", &format!("{name:<12} {words}"));
    }

    fn drive(&mut self, drive: &DriveReport, verbose: bool) {
        let folder = drive.path.display();
        if is_well(drive) && !verbose {
            let entries = count(drive.entries, "entry", "entries");
            return self.put("", &format!("{}  up to date: {entries} in {folder}", drive.name));
        }
        let state = self.state(drive);
        self.put("", &format!("{}  {state}", drive.name));
        self.fact("folder", &folder.to_string());
        if let Some(reason) = &drive.reason {
            self.fact("reason", reason);
        }
        if !drive.writable && drive.state != DriveState::Starting {
            self.fact("access", "read only: what changes here is not sent");
        }
        if let Some(held) = &drive.held {
            self.fact("held", held);
            self.put(
                "               ",
                "to let them go: panorama-gateway drive-sync release-deletions",
            );
        }
        self.work(drive);
        if !drive.conflicts.is_empty() {
            let copies = count(drive.conflicts.len() as u64, "copy", "copies");
            self.fact("conflicts", &format!("{copies}; `drive-sync conflicts` lists them"));
        }
        self.list("not synced", &drive.unsyncable, drive.unsyncable_count);
        self.list("failed", &drive.failed, drive.failed.len().max(drive.waiting));
        let left = self.until(drive.retry_at.as_deref());
        if drive.waiting > 0 && drive.reason.is_none() {
            let entries = count(drive.waiting as u64, "entry", "entries");
            let left = left.map(|left| format!(", tried again {left}")).unwrap_or_default();
            self.fact("waiting", &format!("{entries}{left}"));
        } else if let (Some(left), Some(_)) = (left, &drive.reason) {
            self.fact("tried again", &left);
        }
        if !drive.watched && drive.state != DriveState::Starting {
            let why = drive.watch_problem.as_ref().map(|why| format!(": {why}"));
            let why = why.unwrap_or_default();
            self.fact("watch", &format!("none, only looks now and then{why}"));
        }
        if verbose {
            self.rest(drive);
        }
    }

    /// What is going on.
    fn work(&mut self, drive: &DriveReport) {
        let listing_anew = drive.doing == Phase::Listing && drive.state != DriveState::Starting;
        if listing_anew {
            self.fact("server", &listing(drive));
        }
        match &drive.first_copy {
            Some(copy) if copy.files > 0 => {
                if drive.state != DriveState::Syncing {
                    self.fact("first copy", &first_copy(copy));
                }
            }
            Some(_) | None => {
                if let Some(left) = to_do(&drive.pending) {
                    self.fact("to do", &left);
                }
            }
        }
        let mut name = "on its way";
        for moving in drive.transfers.iter().take(MOVING) {
            self.fact(name, &transfer(moving));
            name = "";
        }
        if let more @ 1.. = drive.transfers.len().saturating_sub(MOVING) {
            self.fact("", &format!("and {more} more"));
        }
        let lag = drive.head.saturating_sub(drive.cursor);
        if lag > 0 && drive.state != DriveState::UpToDate && drive.first_copy.is_none() {
            self.fact("behind", &format!("up to {}", count(lag, "change", "changes")));
        }
    }

    /// What is of interest only when somebody asks for it.
    fn rest(&mut self, drive: &DriveReport) {
        self.fact("entries", &format!("{}, change {}", number(drive.entries), drive.cursor));
        let done = &drive.done;
        self.fact(
            "done",
            &format!(
                "{} fetched ({}), {} sent ({}), {} moved, {} deleted",
                number(done.downloads as u64),
                size(done.download_bytes),
                number(done.uploads as u64),
                size(done.upload_bytes),
                number(done.moves as u64),
                number(done.deletions as u64)
            ),
        );
        let looked = self.ago(drive.audited_at.as_deref());
        self.fact(
            "looked",
            &looked.map_or("not yet".to_owned(), |ago| format!("at everything {ago}")),
        );
        if drive.watched {
            self.fact("watch", "the system tells of changes");
        }
        if let Some(free) = drive.free_bytes {
            self.fact("free", &size(free));
        }
    }

    fn list(&mut self, what: &str, entries: &[Unsyncable], all: usize) {
        if all == 0 {
            return;
        }
        self.fact(what, &count(all as u64, "entry", "entries"));
        for entry in entries.iter().take(TOLD) {
            self.put("    ", &format!("{}: {}", entry.path, entry.reason));
        }
        if all > TOLD {
            self.put(
                "    ",
                &format!("and {} more; --json lists up to 100", number((all - TOLD) as u64)),
            );
        }
    }

    fn state(&self, drive: &DriveReport) -> String {
        let words = match progress(drive) {
            Some(progress) if drive.first_copy.is_some() => progress,
            Some(_) | None => drive.state.words().to_owned(),
        };
        match self.ago(drive.synced_at.as_deref()) {
            Some(ago) if drive.state != DriveState::UpToDate => {
                format!("{words} (last up to date {ago})")
            }
            Some(_) | None => words,
        }
    }

    fn ago(&self, time: Option<&str>) -> Option<String> {
        let time = time?.parse().ok()?;
        Some(format!("{} ago", age::between(time, self.now)))
    }

    /// `in 25 s`.
    fn until(&self, time: Option<&str>) -> Option<String> {
        let time: Timestamp = time?.parse().ok()?;
        let is_ahead = time > self.now;
        Some(if is_ahead { format!("in {}", age::between(self.now, time)) } else { "now".into() })
    }
}

/// Nobody is needed, and there is nothing to wait for.
fn is_well(drive: &DriveReport) -> bool {
    drive.state == DriveState::UpToDate
        && drive.writable
        && drive.watched
        && drive.conflicts.is_empty()
        && drive.unsyncable_count == 0
        && drive.failed.is_empty()
}

fn listing(drive: &DriveReport) -> String {
    let listed = count(drive.listed as u64, "entry", "entries");
    format!("the server lists what it has, {listed} so far")
}

/// `12,345 of 100,000 files, 51 of 411 MiB, about 3 min left`.
fn first_copy(copy: &FirstCopy) -> String {
    let files = format!("{} of {} files", number(copy.files_done), number(copy.files));
    let bytes = size_of(copy.bytes_done, copy.bytes);
    let left = copy.seconds_left.map(|left| format!(", about {} left", about(left)));
    format!("{files}, {bytes}{}", left.unwrap_or_default())
}

/// An estimate is not told more exactly than it is.
fn about(seconds: u64) -> String {
    let rounded = match seconds {
        0..10 => 10,
        10..55 => seconds.next_multiple_of(10),
        55..600 => (seconds + 30) / 60 * 60,
        600..3600 => (seconds + 150) / 300 * 300,
        _ => (seconds + 900) / 1800 * 1800,
    };
    let millis = rounded.max(1) * 1000;
    age::millis(millis).trim_end_matches(" 0 min").to_owned()
}

fn to_do(pending: &Counts) -> Option<String> {
    let mut parts = Vec::new();
    for (files, bytes, what) in [
        (pending.downloads, pending.download_bytes, "fetch"),
        (pending.uploads, pending.upload_bytes, "send"),
    ] {
        if files > 0 {
            parts.push(format!("{} to {what} ({})", number(files as u64), size(bytes)));
        }
    }
    if pending.deletions > 0 {
        parts.push(format!("{} to delete", number(pending.deletions as u64)));
    }
    if pending.others > 0 {
        parts.push(count(pending.others as u64, "other step", "other steps"));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn transfer(moving: &Moving) -> String {
    let way = if moving.send { "to" } else { "from" };
    let path = if moving.path.is_empty() { "a file" } else { &moving.path };
    format!("{} {way} the server: {path}", size_of(moving.moved, moving.size))
}

/// `1 entry`, `12,345 entries`.
fn count(number_of: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(number_of), if number_of == 1 { one } else { many })
}

/// With a comma before each three digits.
fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes with a digit after the point while there is but one before it.
fn size(bytes: u64) -> String {
    let unit = unit_of(bytes);
    format!("{} {}", in_unit(bytes, unit), UNITS[unit])
}

/// `51 of 411 MiB`: both in the unit of the whole.
fn size_of(part: u64, whole: u64) -> String {
    let unit = unit_of(whole);
    format!("{} of {} {}", in_unit(part, unit), in_unit(whole, unit), UNITS[unit])
}

fn unit_of(bytes: u64) -> usize {
    (1..UNITS.len()).take_while(|unit| bytes >= 1 << (10 * unit)).last().unwrap_or(0)
}

fn in_unit(bytes: u64, unit: usize) -> String {
    let tenths = u128::from(bytes) * 10 / (1 << (10 * unit));
    if unit == 0 || tenths == 0 || tenths >= 100 {
        number(u64::try_from(tenths / 10).unwrap_or(u64::MAX))
    } else {
        format!("{}.{}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests;
