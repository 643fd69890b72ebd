//! What agent CLIs print: any bytes are read, and no cut changes what is told or what it comes to.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use panorama_gateway::process::{Ended, Exit};
use panorama_gateway::providers::agent::{AgentEvent, AgentOutcome, AgentRequest, Stream};
use panorama_gateway::providers::{self, Installed, Left, Provider};

fuzz_target!(|data: &[u8]| {
    let Some((size, bytes)) = data.split_first() else { return };
    let size = usize::from(*size).max(1);
    for provider in providers::all() {
        let whole = read(provider, std::iter::once(bytes));
        assert_eq!(read(provider, bytes.chunks(size)), whole);
    }
});

fn read<'a>(
    provider: &dyn Provider,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<AgentEvent>, AgentOutcome) {
    let request = AgentRequest::new("q".to_owned(), Duration::from_secs(60));
    // As if help named every flag that anybody asks for.
    let help = "--output-format stream-json --verbose --json --config --sandbox --skip-git-repo-check";
    let flags = provider.flags(Some(help));
    let command = "/bin/cli".into();
    let installed = Installed { command, flags, ..Installed::default() };
    let plan = provider.agent_plan(&request, &installed).expect("a plain request has a plan");
    let mut reader = provider.agent_reader(&request, &plan);
    let mut events = Vec::new();
    let mut stream = Stream::new(reader.as_mut());
    for piece in pieces {
        stream.push(piece, &mut events);
    }
    stream.end(&mut events);
    let left = Left {
        stdout: String::new(),
        stdout_truncated: false,
        stderr: String::new(),
        exit: Exit::Code(0),
        ended: Ended::ByItself,
        file: None,
    };
    let outcome = reader.outcome(&left);
    (events, outcome)
}
