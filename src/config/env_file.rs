//! The env file: which one is read, and what it adds to the environment.
//!
//! A file is read only when a flag or a variable asks for one, so that an installed gateway never
//! picks up a stray `.env`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::variable::{ENV, ENV_FILE, ENV_PATH, Variable};
use super::{ConfigError, Environment, GlobalOptions};

/// An env file is a few kilobytes; more is something else.
const LARGEST: u64 = 1024 * 1024;
/// No program can be given a longer one (Linux's `MAX_ARG_STRLEN`).
const LONGEST_VALUE: usize = 128 * 1024;
/// A value may name others, and they others still: `B=$A$A`, `C=$B$B`, … grows without end.
const MOST_REFERENCES: usize = 1000;
/// What marks the root of a repository.
const ROOT_MARKS: [&str; 2] = ["pnpm-workspace.yaml", ".git"];
const ENVIRONMENTS: &str = "local (or development), dev, test, stage or prod (or production)";

/// An env file that was laid over the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EnvFile {
    /// The file.
    pub(super) path: PathBuf,
    /// The variables that come from it.
    pub(super) names: BTreeSet<String>,
}

/// Finds the file that is asked for, if any, and adds what it names to the environment. A warning
/// is pushed for a variable that is not understood.
pub(super) fn overlay(
    options: &GlobalOptions,
    environment: &mut Environment,
    current_dir: &Path,
    warnings: &mut Vec<String>,
) -> Result<Option<EnvFile>, ConfigError> {
    let Some(path) = find(options, environment, current_dir, warnings)? else { return Ok(None) };
    let contents = read(&path)?;
    match lay(&contents, environment) {
        Ok(names) => Ok(Some(EnvFile { path, names })),
        Err(reason) => Err(unusable(&path, reason)),
    }
}

/// Adds the variables that are not there yet; gives their names, or what is wrong with the text.
pub(super) fn lay(
    contents: &str,
    environment: &mut Environment,
) -> Result<BTreeSet<String>, String> {
    if contents.matches('$').count() > MOST_REFERENCES {
        return Err(format!("it has more than {MOST_REFERENCES} dollar signs"));
    }
    let mut names = BTreeSet::new();
    for pair in dotenvy::from_read_iter(contents.as_bytes()) {
        let (name, value) = pair.map_err(|error| describe(&error, contents))?;
        if value.len() > LONGEST_VALUE {
            return Err(format!("it has a value of more than {LONGEST_VALUE} bytes"));
        }
        if environment.add_missing(&name, &value) {
            names.insert(name);
        }
    }
    Ok(names)
}

fn find(
    options: &GlobalOptions,
    environment: &Environment,
    current_dir: &Path,
    warnings: &mut Vec<String>,
) -> Result<Option<PathBuf>, ConfigError> {
    let name = environment_name(options, environment, warnings)?;
    let mut variables = [ENV_FILE, ENV_PATH].map(Variable::name).into_iter();
    let named = variables.find_map(|variable| environment.path(variable));
    if let Some(path) = options.env_file.clone().or(named) {
        return Ok(Some(current_dir.join(path)));
    }
    let Some(name) = name else { return Ok(None) };
    let file = if name == "local" { ".env".to_owned() } else { format!(".env.{name}") };
    let root = repository_root(current_dir).unwrap_or(current_dir);
    let at_root = root.join(&file);
    if at_root.exists() {
        return Ok(Some(at_root));
    }
    // When it is here neither, this is the path that the error names.
    Ok(Some(current_dir.join(file)))
}

/// The environment that `--env` or its variable names, by its one canonical name.
fn environment_name(
    options: &GlobalOptions,
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Result<Option<&'static str>, ConfigError> {
    if let Some(asked) = &options.env {
        return match canonical(asked) {
            Some(name) => Ok(Some(name)),
            None => Err(ConfigError::Value {
                name: "--env".to_owned(),
                value: asked.clone(),
                reason: format!("it may be {ENVIRONMENTS}"),
            }),
        };
    }
    let Some(asked) = environment.get(ENV.name()) else { return Ok(None) };
    let name = canonical(asked);
    if name.is_none() {
        warnings.push(format!(
            "{} is ignored: {asked:?} is not known, it may be {ENVIRONMENTS}",
            ENV.name()
        ));
    }
    Ok(name)
}

fn canonical(name: &str) -> Option<&'static str> {
    match name.trim() {
        "local" | "development" => Some("local"),
        "dev" => Some("dev"),
        "test" => Some("test"),
        "stage" => Some("stage"),
        "prod" | "production" => Some("prod"),
        _ => None,
    }
}

fn repository_root(current_dir: &Path) -> Option<&Path> {
    current_dir
        .ancestors()
        .find(|ancestor| ROOT_MARKS.iter().any(|mark| ancestor.join(mark).exists()))
}

/// The whole text. A pipe is as good as a file here: people pass secrets that way.
fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |error: std::io::Error| {
        let reason = if error.kind() == ErrorKind::NotFound {
            "it does not exist".to_owned()
        } else if error.kind() == ErrorKind::InvalidData {
            "it is not UTF-8 text".to_owned()
        } else {
            error.to_string()
        };
        unusable(path, reason)
    };
    let mut contents = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(LARGEST + 1).read_to_string(&mut contents).map_err(failed)?;
    if contents.len() as u64 > LARGEST {
        return Err(unusable(path, format!("it is larger than {LARGEST} bytes")));
    }
    // Some editors put a byte order mark in front.
    Ok(contents.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(contents))
}

fn unusable(path: &Path, reason: String) -> ConfigError {
    ConfigError::EnvFile { path: path.to_owned(), reason }
}

/// Names the line, and never quotes it: it may hold a secret.
fn describe(error: &dotenvy::Error, contents: &str) -> String {
    let place = if let dotenvy::Error::LineParse(text, _) = error {
        contents.find(text.as_str())
    } else {
        None
    };
    match place {
        Some(offset) => {
            let number = contents[..offset].matches('\n').count() + 1;
            format!("line {number} is not of the form NAME=value")
        }
        None => "it has a line that is not of the form NAME=value".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    /// `repo/.git` and `repo/packages/gateway`, where people stand.
    struct Repository {
        _dir: TempDir,
        root: PathBuf,
        inside: PathBuf,
    }

    fn repository() -> Repository {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("repo");
        let inside = root.join("packages/gateway");
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::create_dir(root.join(".git")).unwrap();
        Repository { _dir: dir, root, inside }
    }

    fn asked(name: &str) -> GlobalOptions {
        GlobalOptions { env: Some(name.to_owned()), ..GlobalOptions::default() }
    }

    fn overlaid(
        options: &GlobalOptions,
        environment: &mut Environment,
        current_dir: &Path,
    ) -> Result<Option<EnvFile>, ConfigError> {
        overlay(options, environment, current_dir, &mut Vec::new())
    }

    #[test]
    fn a_stray_file_is_never_read() {
        let repository = repository();
        for dir in [&repository.root, &repository.inside] {
            std::fs::write(dir.join(".env"), "A=1").unwrap();
        }
        let mut environment = Environment::default();
        let read =
            overlaid(&GlobalOptions::default(), &mut environment, &repository.inside).unwrap();
        assert_eq!((read, environment), (None, Environment::default()));
    }

    #[test]
    fn environments_name_their_files_at_the_root_then_here() {
        let repository = repository();
        let names = [
            ("local", ".env"),
            ("development", ".env"),
            ("dev", ".env.dev"),
            ("test", ".env.test"),
            ("stage", ".env.stage"),
            ("prod", ".env.prod"),
            ("production", ".env.prod"),
        ];
        for (name, file) in names {
            for dir in [&repository.inside, &repository.root] {
                std::fs::write(dir.join(file), "A=1").unwrap();
                let by_flag =
                    overlaid(&asked(name), &mut Environment::default(), &repository.inside)
                        .unwrap();
                assert_eq!(by_flag.unwrap().path, dir.join(file));
            }
            let mut environment = Environment::from_pairs([("PANORAMA_ENV", name)]);
            let by_variable =
                overlaid(&GlobalOptions::default(), &mut environment, &repository.inside).unwrap();
            assert_eq!(by_variable.unwrap().path, repository.root.join(file));
            for dir in [&repository.inside, &repository.root] {
                std::fs::remove_file(dir.join(file)).unwrap();
            }
        }
    }

    #[test]
    fn the_root_may_be_marked_by_a_workspace_file() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("a/b");
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::write(dir.path().join("a/pnpm-workspace.yaml"), "").unwrap();
        assert_eq!(repository_root(&inside), Some(dir.path().join("a").as_path()));
    }

    #[test]
    fn a_named_file_goes_before_an_environment() {
        let repository = repository();
        std::fs::write(repository.root.join(".env"), "A=env").unwrap();
        for name in ["flag", "file", "path"] {
            std::fs::write(repository.inside.join(name), format!("A={name}")).unwrap();
        }
        let mut variables = vec![("PANORAMA_ENV", "local")];
        let mut options = GlobalOptions::default();
        let value = |options: &GlobalOptions, variables: &[(&'static str, &'static str)]| {
            let mut environment = Environment::from_pairs(variables.iter().copied());
            overlaid(options, &mut environment, &repository.inside).unwrap();
            environment.get("A").map(str::to_owned)
        };
        assert_eq!(value(&options, &variables).as_deref(), Some("env"));
        variables.push(("PANORAMA_ENV_PATH", "path"));
        assert_eq!(value(&options, &variables).as_deref(), Some("path"));
        variables.push(("PANORAMA_ENV_FILE", "file"));
        assert_eq!(value(&options, &variables).as_deref(), Some("file"));
        options.env_file = Some("flag".into());
        assert_eq!(value(&options, &variables).as_deref(), Some("flag"));
    }

    #[test]
    fn what_is_set_stays_and_what_was_added_is_remembered() {
        let repository = repository();
        let file = repository.root.join(".env");
        std::fs::write(&file, "\u{feff}A=file\nexport B='two words'\n# no\n\nC=\"x\"\n").unwrap();
        let mut environment = Environment::from_pairs([("A", "process")]);
        let read =
            overlaid(&asked("local"), &mut environment, &repository.inside).unwrap().unwrap();
        assert_eq!(read.names, BTreeSet::from(["B".to_owned(), "C".to_owned()]));
        let wanted = [("A", "process"), ("B", "two words"), ("C", "x")];
        assert_eq!(environment, Environment::from_pairs(wanted));
    }

    #[test]
    fn asked_for_and_missing_is_an_error_that_names_the_file() {
        let repository = repository();
        let by_name = overlaid(&asked("stage"), &mut Environment::default(), &repository.inside);
        let file = GlobalOptions { env_file: Some("no.env".into()), ..GlobalOptions::default() };
        let by_file = overlaid(&file, &mut Environment::default(), &repository.inside);
        for (outcome, name) in [(by_name, ".env.stage"), (by_file, "no.env")] {
            let Err(ConfigError::EnvFile { path, reason }) = outcome else {
                panic!("{outcome:?}");
            };
            assert_eq!(path, repository.inside.join(name));
            assert_eq!(reason, "it does not exist");
        }
    }

    #[test]
    fn an_unknown_environment_is_an_error_by_flag_and_a_warning_by_variable() {
        let repository = repository();
        let error =
            overlaid(&asked("moon"), &mut Environment::default(), &repository.root).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--env cannot be \"moon\": it may be local (or development), dev, test, stage or prod \
             (or production)"
        );
        let mut warnings = Vec::new();
        let mut environment = Environment::from_pairs([("PANORAMA_ENV", "moon")]);
        let read =
            overlay(&GlobalOptions::default(), &mut environment, &repository.root, &mut warnings);
        assert_eq!(read.unwrap(), None);
        assert!(warnings.len() == 1 && warnings[0].starts_with("PANORAMA_ENV is ignored"));
    }

    #[test]
    fn a_bad_line_is_named_and_not_quoted() {
        let repository = repository();
        std::fs::write(repository.root.join(".env"), "A=1\nB=2\nhush hush\n").unwrap();
        let error = overlaid(&asked("local"), &mut Environment::default(), &repository.root);
        let text = error.unwrap_err().to_string();
        assert!(text.ends_with("cannot be used: line 3 is not of the form NAME=value"), "{text}");
    }

    #[test]
    fn values_made_of_values_do_not_grow_without_end() {
        let line = |number: u32| format!("A{}=$A{number}$A{number}\n", number + 1);
        let text = "A0=0123456789\n".to_owned() + &(0..64).map(line).collect::<String>();
        let reason = lay(&text, &mut Environment::default()).unwrap_err();
        assert_eq!(reason, "it has a value of more than 131072 bytes");
        let reason = lay(&"A=$B$B\n".repeat(501), &mut Environment::default()).unwrap_err();
        assert_eq!(reason, "it has more than 1000 dollar signs");
    }

    #[test]
    fn what_is_no_text_file_is_an_error() {
        let repository = repository();
        let file = repository.root.join(".env");
        std::fs::write(&file, b"A=\xff").unwrap();
        let outcome = overlaid(&asked("local"), &mut Environment::default(), &repository.root);
        assert!(outcome.unwrap_err().to_string().ends_with("it is not UTF-8 text"));
        std::fs::write(&file, "#".repeat(2 << 20)).unwrap();
        let outcome = overlaid(&asked("local"), &mut Environment::default(), &repository.root);
        assert!(outcome.unwrap_err().to_string().ends_with("it is larger than 1048576 bytes"));
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        let outcome = overlaid(&asked("local"), &mut Environment::default(), &repository.root);
        assert!(matches!(outcome, Err(ConfigError::EnvFile { .. })));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[A-Z= '\"#$\\{\\}\\\\\n\r\t\\PC]{0,60}") {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("file");
            std::fs::write(&file, &text).unwrap();
            let options = GlobalOptions { env_file: Some(file), ..GlobalOptions::default() };
            // Either outcome is fine.
            let outcome = overlaid(&options, &mut Environment::default(), dir.path());
            let told = matches!(outcome, Ok(Some(_)) | Err(ConfigError::EnvFile { .. }));
            prop_assert!(told);
        }
    }
}
