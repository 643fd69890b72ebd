use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;
use crate::fs::testing::{as_ordinary_user, is_root};

/// A home of its own.
struct Home {
    dir: TempDir,
}

impl Home {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn default_dir(&self) -> PathBuf {
        self.dir.path().join(".panorama/gateway")
    }

    fn data_dir(&self) -> PathBuf {
        data_dir(&Environment::default(), self.dir.path())
    }

    fn resolve(
        &self,
        options: &GlobalOptions,
        variables: &[(&str, &str)],
        purpose: Purpose,
    ) -> Result<(Resolved, Vec<String>), ConfigError> {
        let home = self.dir.path().to_str().unwrap();
        let pairs = variables.iter().copied().chain([("HOME", home)]);
        let environment = Environment::from_pairs(pairs);
        let mut layers = Layers::new(&environment, None, Vec::new());
        let resolved = resolve(options, &mut layers, Path::new("/here"), purpose)?;
        Ok((resolved, layers.into_warnings()))
    }

    /// Without flags or variables.
    fn plain(&self, purpose: Purpose) -> Result<(Resolved, Vec<String>), ConfigError> {
        self.resolve(&GlobalOptions::default(), &[], purpose)
    }
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn everything_lies_in_the_default_dir() {
    let home = Home::new();
    let (resolved, warnings) = home.plain(Purpose::Pair).unwrap();
    assert_eq!(resolved.paths, Paths::in_dir(&home.default_dir()));
    assert_eq!(resolved.sources.dir, Source::Default);
    assert_eq!((resolved.fallback, warnings), (None, Vec::new()));
    let mode = home.default_dir().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
}

#[test]
fn only_pairing_makes_the_dir() {
    let home = Home::new();
    let (resolved, _) = home.plain(Purpose::Start).unwrap();
    assert!(!home.dir.path().join(".panorama").exists());
    resolved.paths.prepare().unwrap();
    assert!(home.default_dir().is_dir());
}

#[test]
fn files_lie_beside_the_config_file_and_state_in_the_dir() {
    let home = Home::new();
    let options = GlobalOptions {
        config_path: Some("/elsewhere/mine.json".into()),
        ..GlobalOptions::default()
    };
    let (Resolved { paths, .. }, _) = home.resolve(&options, &[], Purpose::Start).unwrap();
    assert_eq!(paths.config_file, Path::new("/elsewhere/mine.json"));
    assert_eq!(paths.log_file, Path::new("/elsewhere/gateway.log"));
    assert_eq!(paths.pid_file, Path::new("/elsewhere/gateway.pid"));
    assert_eq!(paths.instance_lock(), Path::new("/elsewhere/gateway.lock"));
    assert_eq!(paths.socket(), home.default_dir().join("gateway.sock"));
    assert_eq!(paths.work("subagents"), home.default_dir().join("work/subagents"));
}

#[test]
fn flags_go_before_variables_and_each_remembers_which() {
    let home = Home::new();
    let base = home.dir.path();
    let at = |name: &str| base.join(name).to_str().unwrap().to_owned();
    let variables = [
        ("PANORAMA_GATEWAY_CONFIG_DIR", at("dir-v")),
        ("PANORAMA_GATEWAY_CONFIG_PATH", at("config-v")),
        ("PANORAMA_GATEWAY_LOG_PATH", at("log-v")),
        ("PANORAMA_GATEWAY_PID_PATH", at("pid-v")),
    ];
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let options = GlobalOptions {
        config_dir: Some(base.join("dir-f")),
        log_path: Some(base.join("log-f")),
        ..GlobalOptions::default()
    };
    let (Resolved { paths, sources, .. }, _) =
        home.resolve(&options, &variables, Purpose::Start).unwrap();
    assert_eq!(paths.dir, base.join("dir-f"));
    assert_eq!(paths.config_file, base.join("config-v"));
    assert_eq!(paths.log_file, base.join("log-f"));
    assert_eq!(paths.pid_file, base.join("pid-v"));
    assert_eq!(sources.dir, Source::Flag("--config-dir"));
    assert_eq!(sources.config_file, Source::Variable("PANORAMA_GATEWAY_CONFIG_PATH"));
    assert_eq!(sources.log_file, Source::Flag("--log-path"));
    assert_eq!(sources.pid_file, Source::Variable("PANORAMA_GATEWAY_PID_PATH"));
}

#[test]
fn paths_become_absolute() {
    let home = Path::new("/home/me");
    let cases = [
        ("state", "/here/state"),
        ("./state/./x", "/here/state/x"),
        ("../state", "/here/../state"),
        ("/abs/", "/abs"),
        ("~", "/home/me"),
        ("~/state", "/home/me/state"),
        ("~other/state", "/here/~other/state"),
    ];
    for (given, wanted) in cases {
        let made = absolute(Path::new(given), Some(home), Path::new("/here"));
        assert_eq!(made, Path::new(wanted), "{given}");
    }
}

#[test]
fn without_a_home_a_dir_must_be_named() {
    let dir = tempfile::tempdir().unwrap();
    let environment = Environment::default();
    let mut layers = Layers::new(&environment, None, Vec::new());
    let mut options = GlobalOptions::default();
    let outcome = resolve(&options, &mut layers, Path::new("/here"), Purpose::Start);
    assert!(matches!(outcome, Err(ConfigError::NoHome)));
    options.config_dir = Some(dir.path().to_owned());
    let resolved = resolve(&options, &mut layers, Path::new("/here"), Purpose::Start).unwrap();
    assert_eq!(resolved.paths, Paths::in_dir(dir.path()));
}

#[test]
fn a_blank_flag_is_an_error() {
    let options = GlobalOptions { config_dir: Some(PathBuf::new()), ..GlobalOptions::default() };
    let error = Home::new().resolve(&options, &[], Purpose::Start).err().unwrap();
    assert_eq!(error.to_string(), "--config-dir cannot be \"\": it is empty");
}

#[test]
fn a_dir_that_cannot_be_written_is_replaced_and_its_config_carried_over() {
    as_ordinary_user(|| {
        let home = Home::new();
        let default = home.default_dir();
        std::fs::create_dir_all(&default).unwrap();
        std::fs::write(default.join(CONFIG_FILE), br#"{"teamId": "t", "x": 1}"#).unwrap();
        chmod(&default, 0o500);

        for purpose in [Purpose::Start, Purpose::Pair] {
            let (resolved, warnings) = home.plain(purpose).unwrap();
            assert_eq!(resolved.paths, Paths::in_dir(&home.data_dir()));
            assert_eq!(resolved.fallback, Some((default.clone(), home.data_dir())));
            assert!(warnings.len() == 1 && warnings[0].contains("cannot be written"));
            let carried = std::fs::read(&resolved.paths.config_file).unwrap();
            assert_eq!(carried, br#"{"teamId": "t", "x": 1}"#);
            let mode = resolved.paths.config_file.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o600);
        }
        chmod(&default, 0o700);
    });
}

#[test]
fn what_is_in_the_data_dir_already_is_not_carried_over_again() {
    as_ordinary_user(|| {
        let home = Home::new();
        std::fs::create_dir_all(home.data_dir()).unwrap();
        std::fs::write(home.data_dir().join(CONFIG_FILE), "{}").unwrap();
        std::fs::create_dir_all(home.default_dir()).unwrap();
        std::fs::write(home.default_dir().join(CONFIG_FILE), br#"{"teamId": "old"}"#).unwrap();
        chmod(&home.default_dir(), 0o500);
        let (resolved, _) = home.plain(Purpose::Start).unwrap();
        assert_eq!(std::fs::read(&resolved.paths.config_file).unwrap(), b"{}");
        chmod(&home.default_dir(), 0o700);
    });
}

#[test]
fn a_dir_that_cannot_be_made_is_replaced_without_leaving_a_trace() {
    as_ordinary_user(|| {
        let home = Home::new();
        let data = tempfile::tempdir().unwrap();
        chmod(home.dir.path(), 0o500);
        let variables = [("XDG_DATA_HOME", data.path().to_str().unwrap())];
        let (resolved, _) =
            home.resolve(&GlobalOptions::default(), &variables, Purpose::Start).unwrap();
        chmod(home.dir.path(), 0o700);
        #[cfg(not(target_os = "macos"))]
        {
            assert_eq!(resolved.paths.dir, data.path().join("panorama-gateway"));
            assert!(!resolved.paths.dir.exists());
        }
        #[cfg(target_os = "macos")]
        assert!(resolved.fallback.is_some());
    });
}

#[test]
fn where_the_data_dir_serves_no_better_the_default_is_blamed() {
    as_ordinary_user(|| {
        let home = Home::new();
        chmod(home.dir.path(), 0o500);
        let error = home.plain(Purpose::Pair).err().unwrap();
        chmod(home.dir.path(), 0o700);
        assert!(
            matches!(&error, ConfigError::Fs(error) if error.path() == home.default_dir()),
            "{error:?}"
        );
    });
}

#[test]
fn a_named_dir_is_never_replaced() {
    as_ordinary_user(|| {
        let home = Home::new();
        let named = home.dir.path().join("named");
        std::fs::create_dir(&named).unwrap();
        chmod(&named, 0o500);
        let variables = [("PANORAMA_GATEWAY_CONFIG_DIR", named.to_str().unwrap())];
        let error =
            home.resolve(&GlobalOptions::default(), &variables, Purpose::Start).err().unwrap();
        chmod(&named, 0o700);
        assert!(matches!(&error, ConfigError::Fs(error) if error.is_denied()), "{error:?}");
    });
}

#[test]
fn looking_needs_no_dir_that_can_be_written() {
    as_ordinary_user(|| {
        let home = Home::new();
        let default = home.default_dir();
        std::fs::create_dir_all(&default).unwrap();
        chmod(&default, 0o500);
        let named = [("PANORAMA_GATEWAY_CONFIG_DIR", default.to_str().unwrap())];
        for variables in [&[][..], &named] {
            let (resolved, warnings) =
                home.resolve(&GlobalOptions::default(), variables, Purpose::Look).unwrap();
            assert_eq!(resolved.paths, Paths::in_dir(&default));
            assert_eq!((resolved.fallback, warnings), (None, Vec::new()));
        }
        assert!(!home.data_dir().exists());

        // Where the data dir is in use, it is the one to look at.
        home.plain(Purpose::Pair).unwrap();
        std::fs::write(home.data_dir().join(CONFIG_FILE), "{}").unwrap();
        let (resolved, warnings) = home.plain(Purpose::Look).unwrap();
        chmod(&default, 0o700);
        assert_eq!((resolved.paths.dir, warnings.len()), (home.data_dir(), 1));
    });
}

#[test]
fn the_data_dir_stays_in_use_while_its_config_is_the_newer() {
    let home = Home::new();
    let write = |dir: &Path, age: u64| {
        std::fs::create_dir_all(dir).unwrap();
        let file = std::fs::File::create(dir.join(CONFIG_FILE)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(age)).unwrap();
    };
    write(&home.default_dir(), 1000);
    write(&home.data_dir(), 2000);
    let (resolved, warnings) = home.plain(Purpose::Start).unwrap();
    assert_eq!(resolved.paths.dir, home.data_dir());
    assert_eq!(resolved.fallback, Some((home.default_dir(), home.data_dir())));
    assert!(warnings[0].contains("can be written again"), "{warnings:?}");

    write(&home.default_dir(), 3000);
    let (resolved, warnings) = home.plain(Purpose::Start).unwrap();
    assert_eq!((resolved.paths.dir, warnings), (home.default_dir(), Vec::new()));
}

#[test]
fn root_refuses_a_dir_of_a_user_and_does_not_work_around_it() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    std::fs::create_dir_all(home.default_dir()).unwrap();
    std::os::unix::fs::chown(home.default_dir(), Some(65534), None).unwrap();
    let error = home.plain(Purpose::Start).err().unwrap();
    assert!(matches!(error, ConfigError::Fs(FsError::ForeignOwner { .. })), "{error:?}");
    assert!(!home.data_dir().exists());
}

#[test]
fn a_dir_of_root_in_a_users_home_is_worked_around() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    std::fs::create_dir_all(home.default_dir()).unwrap();
    for path in [home.default_dir(), home.dir.path().join(".panorama")] {
        chmod(&path, 0o755);
    }
    std::os::unix::fs::chown(home.dir.path(), Some(65534), None).unwrap();
    as_ordinary_user(|| {
        let (resolved, _) = home.plain(Purpose::Pair).unwrap();
        assert_eq!(resolved.paths.dir, home.data_dir());
        assert!(home.data_dir().is_dir());
    });
}

#[test]
fn a_file_in_place_of_the_dir_is_an_error() {
    let home = Home::new();
    std::fs::create_dir(home.dir.path().join(".panorama")).unwrap();
    std::fs::write(home.default_dir(), "").unwrap();
    let error = home.plain(Purpose::Start).err().unwrap();
    assert!(matches!(error, ConfigError::Fs(FsError::WrongKind { .. })), "{error:?}");
}
