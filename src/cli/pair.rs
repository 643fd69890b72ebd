//! `pair`.

use std::io::{BufRead, Read};

use super::args::{PairArgs, StartArgs};
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::identity::{self, NewIdentity};
use super::instance::Instance;
use super::{asynchronous, audit, guest, start, validation};
use crate::backend::Endpoint;
use crate::config::{ConfigStore, Purpose};

/// More than any code has.
const LONGEST_CODE: u64 = 4096;

/// Runs the command.
pub(crate) fn run(context: &Context, args: &PairArgs) -> Outcome {
    guest::refuse(context, "`pair`", "its identity comes from its bootstrap token")?;
    let code = code(args)?;
    let settings = context.settings(Purpose::Pair)?;
    let (url, anon_key) = settings.backend(Purpose::Pair)?;
    let identity = NewIdentity {
        url,
        anon_key,
        device_name: settings.device_name.value.clone(),
        full_control: args.full_control,
    };
    let pairing = asynchronous::short(identity::exchange(context, &identity, &code))??;
    let store = ConfigStore::new(settings.paths.clone());
    let saved = identity::save(&store, &identity, &pairing).map_err(|error| {
        Failure::from(error).context("the code was exchanged, but the identity could not be saved")
    })?;
    audit::paired(context, &settings.paths, &pairing, &saved);
    context.ui.out(&format!("Paired as {}.", identity.device_name))?;
    context.ui.out(&format!("Gateway {}, team {}", pairing.gateway_id, pairing.team_id))?;
    let toggle = if saved.full_control() { "enabled" } else { "disabled" };
    context.ui.out(&format!("Machine control is {toggle} on this host."))?;
    let gateway_runs = Instance::find(&settings.paths).is_running();
    let endpoint = Endpoint { url: identity.url.clone(), anon_key: identity.anon_key.clone() };
    let providers = validation::after_pairing(context, &settings, &saved, endpoint, gateway_runs);
    asynchronous::short(providers)??;
    if gateway_runs {
        context.ui.note("the running gateway finishes its work and takes the new identity over");
        return Ok(Exit::Done);
    }
    if args.no_start {
        return Ok(Exit::Done);
    }
    if let Err(failure) = start::run(context, &StartArgs::default()) {
        context.ui.warn("paired, but the gateway could not be started");
        context.ui.err(&failure.render(context.options.verbose, context.ui.colour_on_stderr()));
    }
    Ok(Exit::Done)
}

fn code(args: &PairArgs) -> Result<String, Failure> {
    let given = args.code.as_ref().or(args.code_flag.as_ref()).map_or("", String::as_str);
    let code = if given == "-" { first_line()? } else { given.to_owned() };
    let code = code.trim();
    if code.is_empty() {
        return Err(Failure::usage("the pairing code is empty")
            .hint("pass the code that your team shows: `panorama-gateway pair <CODE>`"));
    }
    Ok(code.to_owned())
}

fn first_line() -> Result<String, Failure> {
    let mut line = String::new();
    std::io::stdin().lock().take(LONGEST_CODE).read_line(&mut line).map_err(|error| {
        Failure::new("could not read the pairing code from stdin").cause(error.to_string())
    })?;
    Ok(line)
}
