//! Text in service files, so that it comes out as it went in.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

use super::Unsayable;

/// An argument of systemd's `ExecStart`: quoted, and neither specifiers (`%`) nor variables (`$`)
/// are replaced in it.
pub fn argument(word: &OsStr) -> String {
    quoted(word, true)
}

/// An assignment of systemd's `Environment`, where `$` means nothing.
pub fn assignment(name: &str, value: &OsStr) -> String {
    let mut whole = std::ffi::OsString::from(format!("{name}="));
    whole.push(value);
    quoted(&whole, false)
}

/// The program of systemd's `ExecStart`, in which `$` stands for itself and some characters cannot
/// be said at all.
pub fn program(path: &OsStr) -> Result<String, Unsayable> {
    let cannot = |byte: &u8| byte.is_ascii_control() || matches!(byte, b'"' | b'\'' | b'\\');
    match path.to_str() {
        Some(text) if !path.as_bytes().iter().any(cannot) => Ok(quoted(OsStr::new(text), false)),
        _ => Err(Unsayable::Program(path.display().to_string())),
    }
}

fn quoted(word: &OsStr, variables: bool) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./=:,@+".contains(byte);
    let bytes = word.as_bytes();
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return word.to_string_lossy().into_owned();
    }
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                '%' => text.push_str("%%"),
                '$' if variables => text.push_str("$$"),
                c if c.is_ascii_control() => escaped(&mut text, c as u8),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            escaped(&mut text, *byte);
        }
    }
    text.push('"');
    text
}

fn escaped(text: &mut String, byte: u8) {
    let _infallible = write!(text, "\\x{byte:02x}");
}

/// Text of a property list.
pub fn xml(text: &OsStr) -> Result<String, Unsayable> {
    let readable = text.to_str().filter(|text| !text.chars().any(char::is_control));
    let text = readable.ok_or_else(|| Unsayable::Text(text.display().to_string()))?;
    Ok(text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn words_for_systemd() {
        for (word, wanted) in [
            ("--config-dir", "--config-dir"),
            ("", r#""""#),
            ("a b", r#""a b""#),
            ("50% $HOME", r#""50%% $$HOME""#),
            (r#"say "no" \ "#, r#""say \"no\" \\ ""#),
            ("it's; #x", r#""it's; #x""#),
            ("two\nlines", r#""two\x0alines""#),
            ("Büro", r#""Büro""#),
        ] {
            assert_eq!(argument(OsStr::new(word)), wanted);
        }
        let odd = OsString::from_vec(b"/x\xff".to_vec());
        assert_eq!(argument(&odd), r#""/x\xff""#);
        assert_eq!(assignment("PATH", OsStr::new("/a b:/$c%")), r#""PATH=/a b:/$c%%""#);
    }

    #[test]
    fn programs_for_systemd() {
        assert_eq!(program(OsStr::new("/opt/x y/$z%")).unwrap(), r#""/opt/x y/$z%%""#);
        for bad in ["/a\"b", "/a'b", "/a\\b", "/a\nb"] {
            assert!(program(OsStr::new(bad)).is_err(), "{bad}");
        }
        assert!(program(&OsString::from_vec(b"/\xff".to_vec())).is_err());
    }

    #[test]
    fn text_for_launchd() {
        assert_eq!(xml(OsStr::new("a<b>&c \"d\"")).unwrap(), "a&lt;b&gt;&amp;c \"d\"");
        assert!(xml(OsStr::new("a\nb")).is_err());
        assert!(xml(&OsString::from_vec(b"\xff".to_vec())).is_err());
    }
}
