//! The grammar of `sandbox drive …`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::sandbox::args::Common;

#[derive(Debug, Subcommand)]
pub(crate) enum DriveCommand {
    /// Make a drive
    Create(CreateArgs),
    /// List drives
    List(ListArgs),
    /// List what is in a drive
    Ls(LsArgs),
    /// Copy a file into a drive
    Put(PutArgs),
    /// Copy a file out of a drive
    Get(GetArgs),
    /// Make a directory
    Mkdir(MkdirArgs),
    /// Remove a file or a directory
    Rm(RmArgs),
    /// Give a file or a directory another path
    Mv(MvArgs),
}

/// Which drive, of which sandbox.
#[derive(Debug, Clone, Args)]
pub(crate) struct OfDrive {
    #[command(flatten)]
    pub common: Common,
    /// Its name, slug or id [default: the oldest drive]
    #[arg(long, value_name = "NAME")]
    pub drive: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub common: Common,
    /// Its name
    pub name: String,
    /// What gateways may do with it
    #[arg(long, value_enum, value_name = "ACCESS", default_value = "write")]
    pub access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Access {
    None,
    Read,
    Write,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    #[command(flatten)]
    pub of: OfDrive,
    /// A directory or a file [default: the root]
    #[arg(default_value = "", hide_default_value = true)]
    pub path: String,
    /// All that is below it
    #[arg(long, short)]
    pub recursive: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    #[command(flatten)]
    pub of: OfDrive,
    /// The file; - is stdin
    pub file: PathBuf,
    /// Where to; a directory keeps the file's name [default: the root]
    #[arg(default_value = "", hide_default_value = true)]
    pub path: String,
    /// Make the directories above it
    #[arg(long, short)]
    pub parents: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    pub of: OfDrive,
    /// The file in the drive
    pub path: String,
    /// Where to; - is stdout [default: its name, here]
    pub file: Option<PathBuf>,
    /// Replace what is there
    #[arg(long, short)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MkdirArgs {
    #[command(flatten)]
    pub of: OfDrive,
    /// The directory
    pub path: String,
    /// Make the directories above it, too; one that is there is no error
    #[arg(long, short)]
    pub parents: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    #[command(flatten)]
    pub of: OfDrive,
    /// The file or the directory
    pub path: String,
    /// With all that is in it
    #[arg(long, short)]
    pub recursive: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MvArgs {
    #[command(flatten)]
    pub of: OfDrive,
    /// Where it is
    pub from: String,
    /// Where it goes; a directory that is there keeps its name
    pub to: String,
}
