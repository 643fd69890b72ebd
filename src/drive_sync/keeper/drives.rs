//! Where each drive's folder is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::path::check_name;
use super::super::wire::Drive;

/// `root/<slug>`, and with a piece of the id where two have the same slug or it is none. By drive id.
pub(super) fn folders(root: &Path, drives: &[Drive]) -> BTreeMap<String, PathBuf> {
    let slug = |drive: &Drive| match check_name(&drive.slug) {
        Ok(()) => drive.slug.clone(),
        Err(_) => "drive".to_owned(),
    };
    drives
        .iter()
        .filter(|drive| is_id(&drive.drive_id))
        .map(|drive| {
            let own = slug(drive);
            let is_unique =
                own == drive.slug && drives.iter().filter(|other| slug(other) == own).count() == 1;
            let id: String =
                drive.drive_id.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
            let name = if is_unique { own } else { format!("{own}-{id}") };
            (drive.drive_id.clone(), root.join(name))
        })
        .collect()
}

/// Ids become names of files of ours: one that could lead elsewhere is no drive's.
fn is_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=100).contains(&id.len()) && id.bytes().all(plain)
}

/// Where the state of a drive is.
pub(super) fn state_file(state_dir: &Path, drive_id: &str) -> PathBuf {
    state_dir.join(format!("{drive_id}.db"))
}

#[cfg(test)]
mod tests {
    use super::super::super::wire::Access;
    use super::*;

    fn drive(id: &str, slug: &str) -> Drive {
        Drive {
            drive_id: id.to_owned(),
            name: slug.to_owned(),
            slug: slug.to_owned(),
            access: Access::Write,
            head_sequence: 0,
            epoch: "e".to_owned(),
        }
    }

    #[test]
    fn an_id_that_leads_elsewhere_is_no_drives() {
        let long = "x".repeat(101);
        for id in ["", "../../etc/passwd", "a/b", "a\0b", ".", "ä", &*long] {
            assert_eq!(folders(Path::new("/d"), &[drive(id, "team")]).len(), 0, "{id:?}");
        }
    }

    #[test]
    fn each_drive_has_a_folder_of_its_own_inside_the_root() {
        let drives = [
            drive("0001-aaaa-9", "team"),
            drive("0002-bbbb-9", "notes"),
            drive("0003-cccc-9", "notes"),
            drive("0004-dddd-9", "../etc"),
        ];
        let folders = folders(Path::new("/d"), &drives);
        let names: Vec<_> = folders.values().map(|folder| folder.to_str().unwrap()).collect();
        let expected = ["/d/team", "/d/notes-0002bbbb", "/d/notes-0003cccc", "/d/drive-0004dddd"];
        assert_eq!(names, expected);
    }
}
