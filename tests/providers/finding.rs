//! Which executable is taken.

use std::path::Path;
use std::time::Duration;

use panorama_gateway::providers::discovery::{Finding, Search};
use panorama_gateway::providers::probe::Limits;
use panorama_gateway::providers::{NoAnswer, ProviderId};

use super::Machine;

async fn find(machine: &Machine, id: ProviderId) -> Finding {
    let mut search = Search::new(id, &machine.settings());
    let look = search.look().await;
    let limits = Limits { choice: Duration::from_secs(2), ..Limits::default() };
    search.run(&machine.asker(), &[], &look, limits).await
}

fn found(command: &Path, version: Option<&str>) -> Finding {
    Finding::Found { command: command.to_owned(), version: version.map(str::to_owned) }
}

#[tokio::test]
async fn the_highest_version_wins_and_each_file_is_asked_once() {
    let machine = Machine::new();
    machine.cli("p1/claude", "2.0.9 (Claude Code)");
    let best = machine.cli("p2/claude", "2.0.10 (Claude Code)");
    let beta = machine.cli(".local/bin/claude", "2.0.11-beta.1 (Claude Code)");
    machine.cli(".claude/local/claude", "1.9.9 (Claude Code)");
    std::fs::create_dir_all(machine.path("bin")).unwrap();
    std::os::unix::fs::symlink(&best, machine.path("bin/claude")).unwrap();
    let finding = find(&machine, ProviderId::ClaudeCode).await;
    assert_eq!(finding, found(&beta, Some("2.0.11-beta.1 (Claude Code)")));
    assert_eq!(
        machine.asked(),
        [
            ".claude/local/claude --version",
            ".local/bin/claude --version",
            "p1/claude --version",
            "p2/claude --version"
        ]
    );
    // Its release is above it; the link to it is found first, and it is called by that name.
    machine.cli("p2/claude", "2.0.11 (Claude Code)");
    let finding = find(&machine, ProviderId::ClaudeCode).await;
    assert_eq!(finding, found(&machine.path("bin/claude"), Some("2.0.11 (Claude Code)")));
}

#[tokio::test]
async fn a_second_search_asks_only_what_is_new() {
    let machine = Machine::new();
    machine.cli("p1/codex", "codex-cli 0.2.0");
    machine.cli("p2/codex", "codex-cli 0.1.0");
    let mut search = Search::new(ProviderId::Codex, &machine.settings());
    let asker = machine.asker();
    for _ in 0..2 {
        let look = search.look().await;
        let finding = search.run(&asker, &[], &look, Limits::default()).await;
        assert_eq!(finding, found(&machine.path("p1/codex"), Some("codex-cli 0.2.0")));
    }
    assert_eq!(machine.asked().len(), 2);
    let before = search.look().await;
    machine.cli("p2/codex", "codex-cli 0.3.0");
    let look = search.look().await;
    assert_ne!(before, look);
    let finding = search.run(&asker, &[], &look, Limits::default()).await;
    assert_eq!(finding, found(&machine.path("p2/codex"), Some("codex-cli 0.3.0")));
    assert_eq!(machine.asked().len(), 3);
}

#[tokio::test]
async fn where_there_is_no_choice_nothing_is_asked() {
    let machine = Machine::new();
    let only = machine.cli("p1/codex", "codex-cli 0.2.0");
    machine.file("p2/codex", "not executable", 0o644);
    assert_eq!(find(&machine, ProviderId::Codex).await, found(&only, None));
    assert_eq!(machine.asked(), [""; 0]);
}

#[tokio::test]
async fn those_that_do_not_answer_are_passed_over() {
    let machine = Machine::new();
    machine.script("p1/gemini", "echo 'no node here' >&2; exit 127");
    let good = machine.cli("p2/gemini", "0.1.0");
    machine.script("bin/gemini", "sleep 60");
    assert_eq!(find(&machine, ProviderId::Gemini).await, found(&good, Some("0.1.0")));
    machine.script("p2/gemini", "kill -9 $$");
    std::fs::remove_file(machine.path("bin/gemini")).unwrap();
    let mute = find(&machine, ProviderId::Gemini).await;
    let command = machine.path("p1/gemini");
    let problem = format!("{} --version ended with exit code 127: no node here", command.display());
    let problem = NoAnswer { text: problem, is_slow: false };
    assert_eq!(mute, Finding::Mute { command, problem });
}

#[tokio::test]
async fn an_override_wins_whatever_else_is_there() {
    let machine = Machine::new();
    machine.cli("p1/claude", "9.0.0");
    let named = machine.cli("odd/my-claude", "1.0.0");
    let by_path = Machine { home: machine.home, variables: machine.variables }
        .with("CLAUDE_CLI", "my-nothing")
        .with("PANORAMA_CLAUDE_CLI", named.to_str().unwrap());
    assert_eq!(find(&by_path, ProviderId::ClaudeCode).await, found(&named, None));
    by_path.cli("p2/my-claude", "1.0.0");
    let by_name = by_path.with("PANORAMA_CLAUDE_CLI", "my-claude");
    let expected = found(&by_name.path("p2/my-claude"), None);
    assert_eq!(find(&by_name, ProviderId::ClaudeCode).await, expected);
    let wrong = by_name.with("PANORAMA_CLAUDE_CLI", "/nowhere/claude");
    let problem = "/nowhere/claude (PANORAMA_CLAUDE_CLI) is not an executable file".to_owned();
    assert_eq!(find(&wrong, ProviderId::ClaudeCode).await, Finding::Missing(problem));
}

#[tokio::test]
async fn a_wrapper_whose_target_is_gone_gives_way_to_another_claude() {
    let machine = Machine::new();
    let broken = "#!/bin/bash\nexec \"/nowhere/claude\" \"$@\"\n";
    let wrapper = machine.file(".claude/local/claude", broken, 0o755);
    let good = machine.cli("p1/claude", "1.0.0");
    let machine = machine.with("PANORAMA_CLAUDE_CLI", wrapper.to_str().unwrap());
    assert_eq!(find(&machine, ProviderId::ClaudeCode).await, found(&good, None));
    let whole = format!("#!/bin/bash\nexec \"{}\" \"$@\"\n", good.display());
    machine.file(".claude/local/claude", &whole, 0o755);
    assert_eq!(find(&machine, ProviderId::ClaudeCode).await, found(&wrapper, None));
    machine.file(".claude/local/claude", broken, 0o755);
    std::fs::remove_file(good).unwrap();
    let problem =
        format!("{} (PANORAMA_CLAUDE_CLI) runs a file that is missing", wrapper.display());
    assert_eq!(find(&machine, ProviderId::ClaudeCode).await, Finding::Missing(problem));
}

#[tokio::test]
async fn the_login_shell_is_asked_when_there_is_none() {
    let machine = Machine::new();
    let missing = find(&machine, ProviderId::Codex).await;
    assert_eq!(missing, Finding::Missing("Codex CLI was not found on this host".to_owned()));
    assert_eq!(machine.asked(), ["shell -lic type -a codex"]);
    machine.script("shell", "echo Welcome; echo 'codex is /opt/odd/codex'");
    let missing = find(&machine, ProviderId::Codex).await;
    let hint = "Codex CLI was not found on this host; the login shell finds it: pass --codex-cli \
                /opt/odd/codex";
    assert_eq!(missing, Finding::Missing(hint.to_owned()));
}

#[tokio::test]
async fn a_real_shell_tells_of_its_aliases_and_functions() {
    let machine = Machine::new().with("SHELL", "/bin/bash");
    machine.file(".bash_profile", ". ~/.bashrc\n", 0o644);
    machine.file(".bashrc", "alias gemini='npx -y gemini'\ncodex() { :; }\n", 0o644);
    for (id, said) in [(ProviderId::Gemini, "aliased to"), (ProviderId::Codex, "a function")] {
        let Finding::Missing(problem) = find(&machine, id).await else { panic!("it is missing") };
        let expected = format!("the login shell says \"{} is {said}", id.command());
        assert!(problem.contains(&expected), "{problem}");
        assert!(problem.ends_with(id.flag()), "{problem}");
    }
}
