//! How Claude Code is called for one answer.

use super::call::{Draft, environment, without_command};
use crate::providers::{FirstSignal, Format, Installed, ModelRequest, OutputMode, Plan, PlanError};

pub(super) fn plan(request: &ModelRequest, installed: &Installed) -> Result<Plan, PlanError> {
    let mut draft = Draft::new(installed);
    let mut prompt = request.prompt.clone();
    isolate(&mut draft);
    // For text too: an error looks like an answer in text mode.
    draft.option("outputFormatFlag", "--output-format", "json");
    if let Format::Json { schema } = &request.format {
        draft.schema(schema, &mut prompt)?;
    }
    draft.optional("modelFlag", "--model", request.model.as_deref(), "model")?;
    if let Some(system) = request.system.as_deref().filter(|system| !system.is_empty()) {
        draft.system(system, &mut prompt, "append_system_prompt")?;
    }
    Ok(Plan {
        program: installed.command.clone(),
        args: draft.args,
        env: environment(request.time_limit),
        files: draft.files,
        stdin: without_command(prompt),
        output: OutputMode::Stdout,
        time_limit: request.time_limit,
        stop: FirstSignal::Interrupt,
    })
}

/// No tools, no settings, hooks or servers of the user, nothing kept.
fn isolate(draft: &mut Draft<'_>) {
    if draft.installed.has("toolsFlag") {
        draft.option("toolsFlag", "--tools", "");
    } else {
        draft.option("allowedToolsFlag", "--allowedTools", "");
    }
    draft.option("inputFormatFlag", "--input-format", "text");
    draft.switch("noSessionPersistenceFlag", "--no-session-persistence");
    draft.option("permissionModeFlag", "--permission-mode", "dontAsk");
    draft.option("settingSourcesFlag", "--setting-sources", "local");
    draft.switch("disableSlashCommandsFlag", "--disable-slash-commands");
    // `--tools` is about built-in ones only; without `--mcp-config` this means no server.
    draft.switch("strictMcpConfigFlag", "--strict-mcp-config");
}
