//! launchd: the property list and what `launchctl` says. Written by the manual; untested on macOS.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::quote::xml;
use super::{Description, MARKER, Scope, Unsayable};
use crate::config::Environment;

/// The job's name.
pub const LABEL: &str = "ai.panorama.gateway";
/// launchd cannot be asked for more time during a stop, and a stop without a limit would hold up a
/// shutdown for ever.
const STOP_LIMIT: Duration = Duration::from_mins(10);

/// Where the property list belongs.
pub fn file(scope: &Scope, environment: &Environment) -> Option<PathBuf> {
    let name = format!("{LABEL}.plist");
    match scope {
        Scope::System { .. } => Some(Path::new("/Library/LaunchDaemons").join(name)),
        Scope::User => Some(environment.path("HOME")?.join("Library/LaunchAgents").join(name)),
    }
}

/// The domain in which the job lives.
pub fn domain(scope: &Scope) -> String {
    match scope {
        Scope::System { .. } => "system".to_owned(),
        Scope::User => format!("gui/{}", nix::unistd::getuid()),
    }
}

/// The property list's text.
pub fn plist(description: &Description) -> Result<String, Unsayable> {
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
        <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
        \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
        <!-- {MARKER}; `service uninstall` removes it. -->\n<plist version=\"1.0\">\n<dict>\n"
    );
    let mut add = |key: &str, value: &str| {
        text.extend(["\t<key>", key, "</key>\n\t", value, "\n"]);
    };
    let string = |text: &OsStr| Ok(format!("<string>{}</string>", xml(text)?));
    let number = |number: u64| format!("<integer>{number}</integer>");
    add("Label", &string(OsStr::new(LABEL))?);
    let words = description.command.iter().map(|word| string(word));
    let words = words.collect::<Result<Vec<_>, _>>()?.join("\n\t\t");
    add("ProgramArguments", &format!("<array>\n\t\t{words}\n\t</array>"));
    if let Scope::System { user } = &description.scope {
        add("UserName", &string(OsStr::new(user))?);
    }
    if let Some(path) = &description.path {
        let path = string(path)?;
        add("EnvironmentVariables", &format!("<dict>\n\t\t<key>PATH</key>\n\t\t{path}\n\t</dict>"));
    }
    add("RunAtLoad", "<true/>");
    // Exit codes cannot be told apart here: one that is not paired is tried again, too.
    add("KeepAlive", "<dict>\n\t\t<key>SuccessfulExit</key>\n\t\t<false/>\n\t</dict>");
    add("ThrottleInterval", &number(30));
    add("ExitTimeOut", &number(description.stop_limit().unwrap_or(STOP_LIMIT).as_secs()));
    // What a job has left in the background on purpose lives on.
    add("AbandonProcessGroup", "<true/>");
    // `Background` would slow the jobs down.
    add("ProcessType", "<string>Standard</string>");
    add("Umask", &number(u64::from(description.umask)));
    add("WorkingDirectory", "<string>/</string>");
    // The gateway keeps its own log, which is rotated; these would grow for ever.
    add("StandardOutPath", "<string>/dev/null</string>");
    add("StandardErrorPath", "<string>/dev/null</string>");
    text += "</dict>\n</plist>\n";
    Ok(text)
}

/// The value of a line `name = value` in what `launchctl print` says.
pub fn property<'a>(printed: &'a str, name: &str) -> Option<&'a str> {
    let pairs = printed.lines().filter_map(|line| line.trim().split_once(" = "));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}
