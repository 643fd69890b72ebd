//! A managed VM: who the gateway is there, and how it confines what it runs.
//!
//! The VM is the boundary, so its host toggle is on; team and resource toggles still rule. Commands
//! run as another user where one is named, so that they cannot read the gateway's state, and each
//! shell command in a cgroup of its own where there are any.

mod cgroup;
mod secrets;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::cgroup::{Limit, Workload, Workloads};
pub use self::secrets::{Placeholder, SecretEnv};
use crate::config::{GuestSettings, SavedConfig};
use crate::fs::{FsError, Owner};
use crate::process::{Confine, ExecUser, ExecUserError};

/// For temporary files of commands: the gateway's own directory is closed to them.
pub const GUEST_TMP: &str = "/tmp";

/// What a gateway in a managed VM knows of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Guest {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    vm_id: String,
    generation: Value,
    exec_user: Option<String>,
    work_dir: PathBuf,
    workloads: Result<Workloads, String>,
}

/// What `status` says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestState {
    /// The VM.
    pub vm_id: String,
    /// Which of its lives this is; null where the backend does not count them.
    pub generation: Value,
    /// As whom commands run; null: as the gateway's own user.
    pub exec_user: Option<String>,
    /// What holds a shell command: `cgroup`, and `shim` where there are none.
    pub containment: String,
    /// Why there are none, or which limits are not enforced; one line.
    pub trouble: Option<String>,
}

/// Why an agent CLI has no place to run.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Its user is no good.
    #[error(transparent)]
    User(#[from] ExecUserError),
    /// Its work dirs cannot be made.
    #[error(transparent)]
    WorkDir(#[from] FsError),
}

/// Who runs a command, and what holds it.
#[derive(Debug)]
pub struct Workplace {
    /// For [`crate::process::RunSpec`].
    pub confine: Confine,
    workload_id: String,
    workload: Option<Workload>,
    /// Why the command is in no cgroup.
    without: Option<String>,
}

impl Guest {
    /// Where the config says that this machine is one. Moves this process into a cgroup of its own,
    /// where there are any. Blocks for milliseconds.
    pub fn of(saved: &SavedConfig, settings: &GuestSettings) -> Option<Self> {
        saved.vm_id()?;
        let workloads = match saved.text("gatewayId") {
            Some(id) => Workloads::prepare(id, limits(settings)),
            None => Err("the gateway has no id".to_owned()),
        };
        if let Err(why) = &workloads {
            tracing::warn!(why, "jobs get no cgroups; the run shims alone hold them");
        }
        let guest = Self::with(saved, settings, workloads)?;
        if let Err(error) = guest.find_user() {
            tracing::error!(error = &error as &dyn std::error::Error, "no command will run");
        }
        Some(guest)
    }

    /// The same for a command that runs beside the gateway: without cgroups.
    pub fn to_look(saved: &SavedConfig, settings: &GuestSettings) -> Option<Self> {
        Self::with(saved, settings, Err("only a running gateway has them".to_owned()))
    }

    fn with(
        saved: &SavedConfig,
        settings: &GuestSettings,
        workloads: Result<Workloads, String>,
    ) -> Option<Self> {
        let exec_user = settings.agent_user.as_ref().map(|user| user.value.clone());
        let inner = Inner {
            vm_id: saved.vm_id()?.to_owned(),
            generation: saved.guest_value("generation").cloned().unwrap_or_default(),
            exec_user,
            work_dir: settings.work_dir.value.clone(),
            workloads,
        };
        Some(Self { inner: Arc::new(inner) })
    }

    /// For `status`.
    pub fn state(&self) -> GuestState {
        let Inner { vm_id, generation, exec_user, workloads, .. } = &*self.inner;
        GuestState {
            vm_id: vm_id.clone(),
            generation: generation.clone(),
            exec_user: exec_user.clone(),
            containment: if workloads.is_ok() { "cgroup" } else { "shim" }.to_owned(),
            trouble: match workloads {
                Err(why) => Some(why.clone()),
                Ok(Workloads { missing, .. }) if missing.is_empty() => None,
                Ok(Workloads { missing, .. }) => {
                    let files: Vec<_> = missing.iter().map(|limit| limit.file).collect();
                    Some(format!("not enforced here: {}", files.join(", ")))
                }
            },
        }
    }

    /// Another user's work dirs of a kind; `None`: they lie with the gateway's files.
    pub fn work(&self, kind: &str) -> Option<PathBuf> {
        self.inner.exec_user.as_ref()?;
        Some(self.inner.work_dir.join(kind))
    }

    /// As whom commands run; `None`: as the gateway's own user. Blocks.
    pub fn find_user(&self) -> Result<Option<ExecUser>, ExecUserError> {
        self.inner.exec_user.as_deref().map(ExecUser::find).transpose()
    }

    /// Whose work dirs are, where they are not ours. Blocks.
    pub fn owner(&self) -> Option<Owner> {
        Some(self.find_user().ok()??.owner())
    }

    /// As whom commands run; `None`: as the gateway's own user.
    pub async fn exec_user(&self) -> Result<Option<ExecUser>, ExecUserError> {
        let Some(name) = self.inner.exec_user.clone() else { return Ok(None) };
        let unreadable = |name: String| {
            move |error| ExecUserError::Unreadable { name, source: std::io::Error::other(error) }
        };
        let find = {
            let name = name.clone();
            move || ExecUser::find(&name)
        };
        tokio::task::spawn_blocking(find).await.map_err(unreadable(name))?.map(Some)
    }

    /// The same for an agent CLI, with the directory of that user's work dirs made.
    pub async fn agent_user(&self) -> Result<Option<ExecUser>, PlaceError> {
        let Some(user) = self.exec_user().await? else { return Ok(None) };
        let (dir, owner) = (self.inner.work_dir.clone(), user.owner());
        let failed = dir.clone();
        tokio::task::spawn_blocking(move || crate::fs::give_dir(&dir, owner))
            .await
            .map_err(|error| FsError::io("make", &failed, std::io::Error::other(error)))??;
        Ok(Some(user))
    }

    /// A place for a shell command: its user, and a cgroup of its own where there are any.
    pub async fn workplace(&self, job_id: &str) -> Result<Workplace, ExecUserError> {
        let user = self.exec_user().await?;
        let workload_id = format!("job-{job_id}");
        let (guest, id) = (self.clone(), workload_id.clone());
        let opened = tokio::task::spawn_blocking(move || match &guest.inner.workloads {
            Ok(workloads) => workloads.open(&id).map_err(|error| error.to_string()),
            Err(why) => Err(why.clone()),
        });
        let (workload, without) = match opened.await {
            Ok(Ok(workload)) => (Some(workload), None),
            Ok(Err(why)) => (None, Some(why)),
            Err(error) => (None, Some(error.to_string())),
        };
        let cgroup = workload.as_ref().map(|workload| workload.path.clone());
        Ok(Workplace { confine: Confine { user, cgroup }, workload_id, workload, without })
    }

    /// Ends what is left in a command's cgroup. What a result says of where its command ran.
    pub async fn end(&self, workplace: Workplace) -> Value {
        let Workplace { confine, workload_id, workload, without } = workplace;
        let ended = match workload {
            Some(workload) => tokio::task::spawn_blocking(move || workload.end())
                .await
                .unwrap_or_else(|error| Err(error.to_string()))
                .map(|()| true),
            None => Ok(false),
        };
        let limits = self.inner.workloads.as_ref().map(|workloads| {
            workloads.limits.iter().map(|limit| (limit.file, limit.value.as_str())).collect()
        });
        let limits: Vec<(&str, &str)> =
            limits.ok().filter(|_| confine.cgroup.is_some()).unwrap_or_default();
        let state = self.state();
        json!({
            "exec_user": confine.user.map(|user| user.name),
            "workload_id": workload_id,
            "cgroup": confine.cgroup.as_deref().map(Path::to_string_lossy),
            "cgroup_termination_error": ended.as_ref().err(),
            "process_tree_contained": ended == Ok(true),
            "readiness_evidence": {
                "vm_id": state.vm_id,
                "generation": state.generation,
                "containment": if confine.cgroup.is_some() { "cgroup" } else { "shim" },
                "limits": limits.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
                "trouble": without.or(state.trouble),
            },
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Ok(workloads) = &self.workloads {
            workloads.leave();
        }
    }
}

fn limits(settings: &GuestSettings) -> Vec<Limit> {
    let wanted = [
        ("memory", "memory.max", &settings.memory_max),
        ("pids", "pids.max", &settings.pids_max),
        ("cpu", "cpu.max", &settings.cpu_max),
    ];
    let given = wanted.into_iter().filter_map(|(controller, file, limit)| {
        Some(Limit { controller, file, value: limit.as_ref()?.value.clone() })
    });
    given.collect()
}
