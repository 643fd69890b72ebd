//! What a managed VM is told by its environment.

use std::path::PathBuf;

use secrecy::SecretString;

use super::super::layers::{Layers, Sourced};
use super::super::variable;

const DEFAULT_WORK_DIR: &str = "/var/lib/panorama/work";
/// The kernel counts cores in parts of this period, in microseconds.
const CPU_PERIOD: u32 = 100_000;
/// The kernel takes no shorter quota, in microseconds.
const LEAST_CPU_QUOTA: u32 = 1_000;

/// Settings of a managed VM, each by its variable in `.env.example`. Outside of VMs only the token
/// is of any use.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "fields are described in `.env.example` by their variables")]
pub struct GuestSettings {
    pub bootstrap_token: Option<Sourced<SecretString>>,
    pub bootstrap_force: Sourced<bool>,
    pub device_name: Option<Sourced<String>>,
    pub image_reference: Option<Sourced<String>>,
    pub agent_user: Option<Sourced<String>>,
    pub work_dir: Sourced<PathBuf>,
    /// As the kernel's `memory.max` takes it; `None`: no limit.
    pub memory_max: Option<Sourced<String>>,
    /// As the kernel's `pids.max` takes it; `None`: no limit.
    pub pids_max: Option<Sourced<String>>,
    /// As the kernel's `cpu.max` takes it; `None`: no limit.
    pub cpu_max: Option<Sourced<String>>,
}

impl GuestSettings {
    pub(super) fn from_layers(layers: &mut Layers<'_>) -> Self {
        let token = layers.variable(&[variable::VM_BOOTSTRAP_TOKEN]);
        let work_dir = layers.parsed(variable::VM_WORK_DIR, "not an absolute path", |text| {
            Some(PathBuf::from(text)).filter(|path| path.is_absolute())
        });
        Self {
            bootstrap_token: token.map(|token| token.map(SecretString::from)),
            bootstrap_force: layers.boolean(variable::VM_BOOTSTRAP_FORCE, false),
            device_name: layers.variable(&[variable::VM_DEVICE_NAME]),
            image_reference: layers.variable(&[variable::VM_IMAGE_REFERENCE]),
            agent_user: layers.variable(&[variable::VM_AGENT_USER]),
            work_dir: work_dir.unwrap_or_else(|| Sourced::default(DEFAULT_WORK_DIR.into())),
            memory_max: given(layers.parsed(
                variable::VM_JOB_MEMORY_MAX,
                "neither a number of bytes nor one with K, M, G or T",
                memory,
            )),
            pids_max: given(layers.parsed(
                variable::VM_JOB_PIDS_MAX,
                "not a whole number above 0",
                whole,
            )),
            cpu_max: given(layers.parsed(
                variable::VM_JOB_CPU_MAX,
                "neither a number of cores nor microseconds and their period",
                cpu,
            )),
        }
    }
}

/// `max` is no limit.
const MAX: &str = "max";

fn given(limit: Option<Sourced<String>>) -> Option<Sourced<String>> {
    limit.filter(|limit| limit.value != MAX)
}

fn memory(text: &str) -> Option<String> {
    if text.eq_ignore_ascii_case(MAX) {
        return Some(MAX.to_owned());
    }
    let shift = match text.chars().last()?.to_ascii_uppercase() {
        'K' => 10,
        'M' => 20,
        'G' => 30,
        'T' => 40,
        _ => 0,
    };
    let digits = if shift == 0 { text } else { &text[..text.len() - 1] };
    let bytes = digits.trim().parse::<u64>().ok()?.checked_mul(1 << shift)?;
    (bytes > 0).then(|| bytes.to_string())
}

fn whole(text: &str) -> Option<String> {
    if text.eq_ignore_ascii_case(MAX) {
        return Some(MAX.to_owned());
    }
    let number = text.parse::<u32>().ok()?;
    (number > 0).then(|| number.to_string())
}

fn cpu(text: &str) -> Option<String> {
    if text.eq_ignore_ascii_case(MAX) {
        return Some(MAX.to_owned());
    }
    if let Some((quota, period)) = text.split_once(char::is_whitespace) {
        let (quota, period) = (quota.parse::<u32>().ok()?, period.trim().parse::<u32>().ok()?);
        let fits = quota >= LEAST_CPU_QUOTA && (LEAST_CPU_QUOTA..=1_000_000).contains(&period);
        return fits.then(|| format!("{quota} {period}"));
    }
    let cores = text.parse::<f64>().ok().filter(|cores| (0.01..=10_000.0).contains(cores))?;
    // Within these bounds the conversion is exact enough and free of overflow.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
    let quota = (cores * f64::from(CPU_PERIOD)).round() as u64;
    Some(format!("{quota} {CPU_PERIOD}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parse = fn(&str) -> Option<String>;

    #[test]
    fn limits_are_said_as_the_kernel_takes_them() {
        let cases: [(Parse, &str, Option<&str>); 19] = [
            (memory, "1048576", Some("1048576")),
            (memory, "2G", Some("2147483648")),
            (memory, "512 m", Some("536870912")),
            (memory, "max", Some("max")),
            (memory, "0", None),
            (memory, "2.5G", None),
            (memory, "99999999999T", None),
            (memory, "-1", None),
            (memory, "G", None),
            (memory, "1\u{e9}", None),
            (whole, "512", Some("512")),
            (whole, "MAX", Some("max")),
            (whole, "0", None),
            (cpu, "1.5", Some("150000 100000")),
            (cpu, "50000 200000", Some("50000 200000")),
            (cpu, "10 100000", None),
            (cpu, "NaN", None),
            (cpu, "max", Some("max")),
            (cpu, "0", None),
        ];
        for (parse, text, wanted) in cases {
            assert_eq!(parse(text), wanted.map(str::to_owned), "{text}");
        }
    }
}
