//! Names of conflict copies.

use super::model::Sha256;
use super::path::LONGEST_NAME;

/// `stem (conflict <machine> <time of last change> <sha8>).ext`: the same for the same loser, so
/// that a repetition repeats it. `attempt` over 0 gives the next one, for when the name is taken by
/// something else. `mtime` in nanoseconds since 1970.
pub fn conflict_name(name: &str, machine: &str, mtime: i64, sha: &Sha256, attempt: u32) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(mtime)).unwrap_or_default();
    let time = time.strftime("%Y-%m-%dT%H-%M-%SZ");
    let again = if attempt == 0 { String::new() } else { format!("-{}", attempt + 1) };
    let machine: String = machine.chars().filter(|letter| !"/\0()".contains(*letter)).collect();
    let machine = cut(&machine, 64);
    let mark = format!(" (conflict {machine} {time} {}{again})", &sha.hex()[..8]);
    let (stem, extension) = split(name);
    // An extension that leaves no room is part of the name.
    let (stem, extension) = if extension.len() > 32 { (name, "") } else { (stem, extension) };
    let room = LONGEST_NAME.saturating_sub(mark.len() + extension.len());
    format!("{}{mark}{extension}", cut(stem, room))
}

/// The name and its extension with the dot; a name that begins with its only dot has none.
fn split(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 => name.split_at(dot),
        _ => (name, ""),
    }
}

/// At most so many bytes, and no half letter.
fn cut(text: &str, bytes: usize) -> &str {
    let mut keep = text.len().min(bytes);
    while !text.is_char_boundary(keep) {
        keep -= 1;
    }
    &text[..keep]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: i64 = 1_795_000_000_123_456_789;

    #[test]
    fn the_copy_lies_beside_and_keeps_its_kind() {
        let sha = Sha256([0xab; 32]);
        let name = |name| conflict_name(name, "vm-7", TIME, &sha, 0);
        assert_eq!(name("notes.txt"), "notes (conflict vm-7 2026-11-18T11-06-40Z abababab).txt");
        assert_eq!(name("Makefile"), "Makefile (conflict vm-7 2026-11-18T11-06-40Z abababab)");
        assert_eq!(name(".bashrc"), ".bashrc (conflict vm-7 2026-11-18T11-06-40Z abababab)");
        let again = conflict_name("a.b.c", "v/m (7)", TIME, &sha, 1);
        assert_eq!(again, "a.b (conflict vm 7 2026-11-18T11-06-40Z abababab-2).c");
    }

    #[test]
    fn a_long_name_is_cut_between_letters() {
        let sha = Sha256([1; 32]);
        for name in ["ü".repeat(127), format!("{}.txt", "ß".repeat(125)), ".".repeat(255)] {
            let copy = conflict_name(&name, &"m".repeat(300), i64::MAX, &sha, 98);
            assert!(copy.len() <= 255 && copy.len() > 200, "{copy}");
        }
    }
}
