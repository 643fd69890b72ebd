use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;

/// A home, and a directory to stand in.
struct Place {
    home: TempDir,
    here: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap(), here: tempfile::tempdir().unwrap() }
    }

    fn store(&self) -> ConfigStore {
        ConfigStore::new(Paths::in_dir(&self.home.path().join(".panorama/gateway")))
    }

    fn save(&self, fields: &[(&str, &str)]) {
        self.store()
            .update(|config| fields.iter().for_each(|(name, value)| config.set(name, *value)))
            .unwrap();
    }

    fn resolve(
        &self,
        options: &GlobalOptions,
        variables: &[(&str, &str)],
        purpose: Purpose,
    ) -> Result<Settings, ConfigError> {
        let home = self.home.path().to_str().unwrap();
        let pairs = variables.iter().copied().chain([("HOME", home)]);
        Settings::resolve_in(self.here.path(), options, Environment::from_pairs(pairs), purpose)
    }

    fn with(&self, variables: &[(&str, &str)]) -> Settings {
        self.resolve(&GlobalOptions::default(), variables, Purpose::Start).unwrap()
    }
}

fn url(settings: &Settings) -> (&str, Source) {
    let url = settings.supabase_url.as_ref().unwrap();
    (&url.value, url.source.clone())
}

fn key(settings: &Settings) -> (&str, Source) {
    let key = settings.anon_key.as_ref().unwrap();
    (key.value.expose_secret(), key.source.clone())
}

#[test]
fn url_and_key_are_taken_each_by_itself_in_the_written_order() {
    let place = Place::new();
    place.save(&[("supabaseUrl", "saved"), ("supabaseAnonKey", "saved-key")]);
    let mut variables = Vec::new();
    let mut options = GlobalOptions::default();
    let resolve = |options: &GlobalOptions, variables: &[(&'static str, &'static str)]| {
        place.resolve(options, variables, Purpose::Start).unwrap()
    };

    let settings = resolve(&options, &variables);
    assert_eq!(url(&settings), ("saved", Source::Saved));
    assert_eq!(key(&settings), ("saved-key", Source::Saved));

    variables.push(("SUPABASE_URL", "second"));
    variables.push(("SUPABASE_PUBLISHABLE_KEY", "third"));
    let settings = resolve(&options, &variables);
    assert_eq!(url(&settings), ("second", Source::Variable("SUPABASE_URL")));
    assert_eq!(key(&settings), ("third", Source::Variable("SUPABASE_PUBLISHABLE_KEY")));

    variables.push(("PANORAMA_SUPABASE_URL", "first"));
    variables.push(("SUPABASE_ANON_KEY", "second"));
    let settings = resolve(&options, &variables);
    assert_eq!(url(&settings), ("first", Source::Variable("PANORAMA_SUPABASE_URL")));
    assert_eq!(key(&settings), ("second", Source::Variable("SUPABASE_ANON_KEY")));

    variables.push(("PANORAMA_SUPABASE_ANON_KEY", "first"));
    options.supabase_url = Some("flag".to_owned());
    let settings = resolve(&options, &variables);
    assert_eq!(url(&settings), ("flag", Source::Flag("--supabase-url")));
    assert_eq!(key(&settings), ("first", Source::Variable("PANORAMA_SUPABASE_ANON_KEY")));

    options.anon_key = Some("flag-key".to_owned());
    let settings = resolve(&options, &variables);
    assert_eq!(key(&settings), ("flag-key", Source::Flag("--anon-key")));
}

#[test]
fn pairing_ignores_what_is_saved_even_when_it_is_damaged() {
    let place = Place::new();
    place.save(&[("supabaseUrl", "saved"), ("supabaseAnonKey", "k"), ("deviceName", "saved")]);
    let pair = |variables| place.resolve(&GlobalOptions::default(), variables, Purpose::Pair);
    let settings = pair(&[("PANORAMA_GATEWAY_DEVICE_NAME", "named")]).unwrap();
    assert!(settings.supabase_url.is_none_or(|url| url.source == Source::Default));
    assert!(settings.anon_key.is_none_or(|key| key.source == Source::Default));
    assert_eq!(settings.device_name.value, "named");

    std::fs::write(place.store().paths().config_file.clone(), "{").unwrap();
    pair(&[]).unwrap();
    let error = place.resolve(&GlobalOptions::default(), &[], Purpose::Start).unwrap_err();
    assert!(matches!(error, ConfigError::Damaged { .. }), "{error:?}");
}

#[test]
fn the_device_name_is_flag_saved_variable_host() {
    let place = Place::new();
    let variables = [("PANORAMA_GATEWAY_DEVICE_NAME", " by variable ")];
    let name = |options: &GlobalOptions, variables| {
        let name = place.resolve(options, variables, Purpose::Start).unwrap().device_name;
        (name.value, name.source)
    };
    let mut options = GlobalOptions::default();
    let (host, source) = name(&options, &[]);
    assert!(!host.is_empty() && source == Source::Default);
    assert_eq!(name(&options, &variables).0, "by variable");
    place.save(&[("deviceName", "by config")]);
    assert_eq!(name(&options, &variables), ("by config".to_owned(), Source::Saved));
    options.device_name = Some("by flag".to_owned());
    assert_eq!(name(&options, &variables).0, "by flag");
}

#[test]
fn defaults() {
    let settings = Place::new().with(&[]);
    assert_eq!(settings.concurrency.value, 10);
    assert!(settings.auto_restart.value);
    assert_eq!(settings.restart_check.value, Duration::from_secs(30));
    assert_eq!(settings.restart_max_wait.value, None);
    assert_eq!(settings.drain_timeout.value, None);
    assert_eq!(settings.log_filter.value, "info");
    assert!(settings.live_events.value);
    assert!(!settings.allow_insecure.value);
    assert!(settings.metrics_listen.is_none() && settings.claude_cli.is_none());
    assert_eq!(settings.warnings, Vec::<String>::new());
}

#[test]
fn variables_are_taken_as_written() {
    let settings = Place::new().with(&[
        ("PANORAMA_GATEWAY_CONCURRENCY", "3"),
        ("PANORAMA_GATEWAY_AUTO_RESTART", "No"),
        ("PANORAMA_GATEWAY_RESTART_CHECK_MS", "1500"),
        ("PANORAMA_GATEWAY_RESTART_MAX_WAIT_MS", "0"),
        ("PANORAMA_GATEWAY_DRAIN_TIMEOUT_MS", " 250 "),
        ("PANORAMA_GATEWAY_LOG", "panorama_gateway=debug"),
        ("PANORAMA_GATEWAY_METRICS_LISTEN", "[::1]:9464"),
        ("PANORAMA_GATEWAY_LIVE_EVENTS", "OFF"),
        ("PANORAMA_ALLOW_INSECURE_BACKEND", "true"),
        ("CLAUDE_CLI", "/opt/claude"),
        ("PANORAMA_CODEX_CLI", "/opt/codex"),
        ("CODEX_CLI", "/other/codex"),
    ]);
    assert_eq!(settings.warnings, Vec::<String>::new());
    assert_eq!(settings.concurrency.value, 3);
    assert!(!settings.auto_restart.value);
    assert_eq!(settings.restart_check.value, Duration::from_millis(1500));
    assert_eq!(settings.restart_max_wait.value, Some(Duration::ZERO));
    assert_eq!(settings.drain_timeout.value, Some(Duration::from_millis(250)));
    assert_eq!(settings.log_filter.value, "panorama_gateway=debug");
    assert_eq!(settings.metrics_listen.unwrap().value.port(), 9464);
    assert!(!settings.live_events.value);
    assert!(settings.allow_insecure.value);
    assert_eq!(settings.claude_cli.unwrap().source, Source::Variable("CLAUDE_CLI"));
    assert_eq!(settings.codex_cli.unwrap().value, "/opt/codex");
}

#[test]
fn what_is_not_understood_is_a_warning_by_name_and_the_default() {
    let cases = [
        ("PANORAMA_GATEWAY_CONCURRENCY", "many"),
        ("PANORAMA_GATEWAY_CONCURRENCY", "-1"),
        ("PANORAMA_GATEWAY_CONCURRENCY", "1.5"),
        ("PANORAMA_GATEWAY_AUTO_RESTART", "2"),
        ("PANORAMA_GATEWAY_RESTART_CHECK_MS", "30s"),
        ("PANORAMA_GATEWAY_RESTART_MAX_WAIT_MS", "soon"),
        ("PANORAMA_GATEWAY_DRAIN_TIMEOUT_MS", "99999999999999999999999"),
        ("PANORAMA_GATEWAY_METRICS_LISTEN", "9464"),
        ("PANORAMA_GATEWAY_LIVE_EVENTS", "maybe"),
        ("PANORAMA_ALLOW_INSECURE_BACKEND", "y"),
    ];
    let place = Place::new();
    let defaults = format!("{:?}", without_environment(place.with(&[])));
    for (name, value) in cases {
        let mut settings = place.with(&[(name, value)]);
        let [warning] = std::mem::take(&mut settings.warnings).try_into().unwrap();
        let wanted = format!("{name} is ignored: {value:?} is ");
        assert!(warning.starts_with(&wanted), "{warning}");
        assert_eq!(format!("{:?}", without_environment(settings)), defaults, "{name}={value}");
    }
}

fn without_environment(mut settings: Settings) -> Settings {
    settings.environment = Environment::default();
    settings
}

#[test]
fn what_is_out_of_range_is_the_nearest_bound_with_a_warning() {
    let place = Place::new();
    let settings = place.with(&[
        ("PANORAMA_GATEWAY_CONCURRENCY", "0"),
        ("PANORAMA_GATEWAY_RESTART_CHECK_MS", "10"),
        ("PANORAMA_GATEWAY_DRAIN_TIMEOUT_MS", "18446744073709551615"),
    ]);
    assert_eq!(settings.concurrency.value, 1);
    assert_eq!(settings.restart_check.value, Duration::from_secs(1));
    assert_eq!(settings.drain_timeout.value, Some(Duration::from_hours(365 * 24)));
    assert_eq!(
        settings.warnings[..2],
        [
            "PANORAMA_GATEWAY_CONCURRENCY is taken as 1: 0 is out of range",
            "PANORAMA_GATEWAY_RESTART_CHECK_MS is taken as 1000 ms: 10 ms is out of range",
        ]
    );
    assert_eq!(settings.warnings.len(), 3);
    let settings = place.with(&[("PANORAMA_GATEWAY_CONCURRENCY", "18446744073709551615")]);
    assert_eq!(settings.concurrency.value, 1000);
}

#[test]
fn what_the_env_file_adds_is_told_apart_and_reaches_children() {
    let place = Place::new();
    let file = place.here.path().join(".env.stage");
    std::fs::write(&file, "SUPABASE_URL=by-file\nSUPABASE_ANON_KEY=by-file\nOTHER=x\n").unwrap();
    let options = GlobalOptions { env: Some("stage".to_owned()), ..GlobalOptions::default() };
    let variables = [("SUPABASE_ANON_KEY", "by-process")];
    let settings = place.resolve(&options, &variables, Purpose::Start).unwrap();
    assert_eq!(url(&settings), ("by-file", Source::EnvFile("SUPABASE_URL", file.clone())));
    assert_eq!(key(&settings), ("by-process", Source::Variable("SUPABASE_ANON_KEY")));
    assert_eq!(settings.environment.get("OTHER"), Some("x"));
    assert_eq!(settings.env_file, Some(file));
}

#[test]
fn a_stray_env_file_changes_nothing() {
    let place = Place::new();
    place.save(&[("supabaseUrl", "saved"), ("accessToken", "a")]);
    std::fs::write(place.here.path().join(".env"), "SUPABASE_URL=stray\n").unwrap();
    let settings = place.with(&[]);
    assert_eq!(url(&settings), ("saved", Source::Saved));
    assert_eq!(settings.env_file, None);
}

#[test]
fn an_env_file_may_name_the_config_dir() {
    let place = Place::new();
    let file = place.here.path().join("my.env");
    std::fs::write(&file, "PANORAMA_GATEWAY_CONFIG_DIR=state\n").unwrap();
    let settings = place.with(&[("PANORAMA_ENV_FILE", file.to_str().unwrap())]);
    assert_eq!(settings.paths, Paths::in_dir(&place.here.path().join("state")));
    assert_eq!(settings.path_sources.dir, Source::EnvFile("PANORAMA_GATEWAY_CONFIG_DIR", file));
}

#[test]
fn blank_flags_are_errors() {
    let blank = || Some(" ".to_owned());
    let cases = [
        GlobalOptions { supabase_url: blank(), ..GlobalOptions::default() },
        GlobalOptions { anon_key: blank(), ..GlobalOptions::default() },
        GlobalOptions { device_name: blank(), ..GlobalOptions::default() },
        GlobalOptions { codex_cli: blank(), ..GlobalOptions::default() },
    ];
    for options in cases {
        let error = Place::new().resolve(&options, &[], Purpose::Start).unwrap_err();
        assert!(error.to_string().ends_with("it is empty"), "{error}");
    }
}

/// Settings with this backend, for this purpose.
fn backend(url: &str, key: &str, insecure: &str, purpose: Purpose) -> Settings {
    let variables = [
        ("SUPABASE_URL", url),
        ("SUPABASE_ANON_KEY", key),
        ("PANORAMA_ALLOW_INSECURE_BACKEND", insecure),
    ];
    Place::new().resolve(&GlobalOptions::default(), &variables, purpose).unwrap()
}

#[test]
fn the_backend_has_no_trailing_slash() {
    for given in ["https://Example.com", "https://example.com/", " https://example.com:443// "] {
        let settings = backend(given, "k", "", Purpose::Pair);
        let (url, key) = settings.backend(Purpose::Pair).unwrap();
        assert_eq!((url.as_str(), key.expose_secret()), ("https://example.com", "k"), "{given}");
    }
    let settings = backend("http://127.0.0.1:54321/base/", "k", "", Purpose::Pair);
    assert_eq!(settings.backend(Purpose::Pair).unwrap().0, "http://127.0.0.1:54321/base");
    assert_eq!(settings.warnings, Vec::<String>::new());
}

#[test]
fn plain_http_is_refused_for_pairing_and_a_warning_otherwise() {
    let url = "http://backend.example";
    let settings = backend(url, "k", "", Purpose::Pair);
    let error = settings.backend(Purpose::Pair).unwrap_err();
    assert!(matches!(&error, ConfigError::Insecure { url: named } if named == url), "{error:?}");

    for (insecure, purpose) in [("", Purpose::Start), ("1", Purpose::Pair)] {
        let settings = backend(url, "k", insecure, purpose);
        assert_eq!(settings.backend(purpose).unwrap().0, url);
        assert!(settings.warnings[0].contains("is not encrypted"), "{:?}", settings.warnings);
    }
}

#[test]
fn saved_tokens_do_not_go_to_a_backend_that_only_an_env_file_names() {
    let place = Place::new();
    std::fs::write(place.here.path().join("file"), "SUPABASE_URL=https://b.example").unwrap();
    let options = GlobalOptions { env_file: Some("file".into()), ..GlobalOptions::default() };
    let backend = |options: &GlobalOptions, variables: &[(&str, &str)], purpose| {
        let settings = place.resolve(options, variables, purpose).unwrap();
        settings.backend(purpose).map(|(url, _)| url)
    };
    let key = [("SUPABASE_ANON_KEY", "k")];
    assert_eq!(backend(&options, &key, Purpose::Start).unwrap(), "https://b.example");

    place.save(&[("supabaseUrl", "https://a.example"), ("refreshToken", "r")]);
    let error = backend(&options, &key, Purpose::Start).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ConfigError::OtherBackend { .. }), "{error:?}");
    assert!(text.starts_with("SUPABASE_URL in ") && text.ends_with("https://a.example"), "{text}");

    // Pairing takes nothing that is saved, and what is asked for outside the file is meant.
    assert_eq!(backend(&options, &key, Purpose::Pair).unwrap(), "https://b.example");
    let by_variable = [key[0], ("SUPABASE_URL", "https://b.example")];
    assert_eq!(backend(&options, &by_variable, Purpose::Start).unwrap(), "https://b.example");
    place.save(&[("supabaseUrl", "https://B.example/")]);
    assert_eq!(backend(&options, &key, Purpose::Start).unwrap(), "https://b.example");
}

#[test]
fn a_missing_half_of_the_backend_is_named() {
    if DEFAULT_URL.is_some() || DEFAULT_KEY.is_some() {
        return;
    }
    let error = backend("", "k", "", Purpose::Start).backend(Purpose::Start).unwrap_err();
    assert_eq!(error.to_string(), "no backend is configured: the Supabase URL is not set");
    let error = backend("https://a.b", "", "", Purpose::Start).backend(Purpose::Start).unwrap_err();
    assert_eq!(error.to_string(), "no backend is configured: the anon key is not set");
}

#[test]
fn a_bad_url_or_key_is_named_by_its_source() {
    let error = backend("localhost:1", "k", "", Purpose::Start).backend(Purpose::Start);
    assert_eq!(
        error.unwrap_err().to_string(),
        "SUPABASE_URL cannot be \"localhost:1\": it must begin with https:// (or http:// on this \
         machine)"
    );
    let error = backend("https://a.b", "hush\nhush", "", Purpose::Start).backend(Purpose::Start);
    let text = error.unwrap_err().to_string();
    assert!(text.starts_with("SUPABASE_ANON_KEY cannot be") && !text.contains("hush"), "{text}");

    let place = Place::new();
    place.save(&[("supabaseUrl", "nonsense"), ("supabaseAnonKey", "k")]);
    let error = place.with(&[]).backend(Purpose::Start).unwrap_err();
    assert!(error.to_string().starts_with("supabaseUrl in gateway.json cannot be"), "{error}");
}

#[test]
fn the_table_shows_every_setting_and_no_secret() {
    let place = Place::new();
    place.save(&[
        ("gatewayId", "g"),
        ("teamId", "t"),
        ("accessToken", "hush-a"),
        ("refreshToken", "hush-r"),
        ("supabaseAnonKey", "hush-k"),
    ]);
    let saved = place.store().update(|config| config.set("full_control_enabled", true)).unwrap();
    let settings = place.with(&[
        ("SUPABASE_URL", "https://user:hush@example.com"),
        ("PANORAMA_GATEWAY_CONCURRENCY", "4"),
        ("PANORAMA_GATEWAY_DRAIN_TIMEOUT_MS", "5000"),
    ]);
    let rows = settings.table(&saved);
    let row = |name: &str| {
        let row = rows.iter().find(|(found, _, _)| found == name).unwrap();
        (row.1.as_str(), row.2.as_str())
    };
    assert_eq!(row("supabase-url"), ("(not shown)", "SUPABASE_URL"));
    assert_eq!(row("anon-key"), ("set", "saved config"));
    assert_eq!(row("concurrency"), ("4", "PANORAMA_GATEWAY_CONCURRENCY"));
    assert_eq!(row("drain-timeout"), ("5000 ms", "PANORAMA_GATEWAY_DRAIN_TIMEOUT_MS"));
    assert_eq!(row("restart-max-wait"), ("none", "default"));
    assert_eq!(row("config-dir").0, settings.paths.dir.to_str().unwrap());
    assert_eq!(row("paired"), ("yes", "saved config"));
    assert_eq!(row("full-control"), ("on", "saved config"));
    assert_eq!(row("access-token"), ("set", "saved config"));
    assert!(!format!("{rows:?}{settings:?}").contains("hush-"));

    let rows = settings.table(&SavedConfig::default());
    let find = |name: &str| rows.iter().find(|(found, _, _)| found == name).unwrap().1.clone();
    assert_eq!((find("paired"), find("full-control")), ("no".to_owned(), "off".to_owned()));
    assert_eq!(find("refresh-token"), "unset");
}

#[test]
fn flags_keep_the_key_out_of_debug_output() {
    let options = GlobalOptions { anon_key: Some("hush".to_owned()), ..GlobalOptions::default() };
    assert!(!format!("{options:?}").contains("hush"));
}
