//! What went wrong and whose fault it is: exit 2 for something the user gave, exit 1 for anything else.

use crate::report::complain;
use allpet::{
    autoencoder, candle, core, diffusion, foundation, io, mask, metrics, nn, radon, sim, tasks, train,
};
use clap::error::ErrorKind;
use std::process::ExitCode;

/// A command's failure, in one line.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Something the user gave: what, where, what was expected.
    Given(String),
    /// Anything else: a full disk, an interruption, a bug.
    Other(String),
    /// As [`Fault::Other`], already said.
    Told,
}

pub(crate) type Result<T, E = Fault> = std::result::Result<T, E>;

/// A fault of the user's.
pub(crate) fn given<T>(text: impl Into<String>) -> Result<T> {
    Err(Fault::Given(text.into()))
}

impl Fault {
    pub(crate) fn tell(&self) -> ExitCode {
        match self {
            Self::Given(text) => {
                complain(text);
                ExitCode::from(2)
            }
            Self::Other(text) => {
                complain(text);
                ExitCode::from(1)
            }
            Self::Told => ExitCode::from(1),
        }
    }

    fn judged(by_user: bool, text: String) -> Self {
        if by_user {
            Self::Given(text)
        } else {
            Self::Other(text)
        }
    }
}

/// Help and version go out as they are; a usage error becomes one line.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that has gone away needs no help.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(2)
        }
        _ => {
            let text = error.render().to_string();
            let words: Vec<&str> = text
                .lines()
                .map(str::trim)
                .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
                .filter(|line| !line.is_empty())
                .collect();
            complain(words.join(" ").trim_start_matches("error: "));
            ExitCode::from(2)
        }
    }
}

// Which faults are the user's is decided by what the libraries say, here and nowhere else.

/// Reading what is not there or not readable is the user's; failing to write, make or keep a file is not.
fn core_by_user(error: &core::Error) -> bool {
    !matches!(error, core::Error::Io { action, .. } if *action != "read")
}

fn io_by_user(error: &io::Error) -> bool {
    match error {
        io::Error::Core(e) => core_by_user(e),
        _ => true,
    }
}

fn radon_by_user(error: &radon::Error) -> bool {
    match error {
        radon::Error::Core(e) => core_by_user(e),
        radon::Error::Fourier(_) => false,
        _ => true,
    }
}

fn mask_by_user(error: &mask::Error) -> bool {
    match error {
        mask::Error::Core(e) => core_by_user(e),
        _ => true,
    }
}

fn metrics_by_user(error: &metrics::Error) -> bool {
    match error {
        metrics::Error::Core(e) => core_by_user(e),
        metrics::Error::NoConvergence { .. } | metrics::Error::Candle(_) => false,
        _ => true,
    }
}

fn sim_by_user(error: &sim::Error) -> bool {
    match error {
        sim::Error::Core(e) => core_by_user(e),
        _ => true,
    }
}

fn nn_by_user(error: &nn::Error) -> bool {
    !matches!(error, nn::Error::Candle(_))
}

fn train_by_user(error: &train::Error) -> bool {
    use train::Error as E;
    match error {
        E::Core(e) => core_by_user(e),
        E::Nn(e) => nn_by_user(e),
        E::Invalid { .. } | E::Damaged { .. } | E::OtherRun { .. } | E::Exists { .. } | E::Tensor { .. } => {
            true
        }
        _ => false,
    }
}

fn autoencoder_by_user(error: &autoencoder::Error) -> bool {
    use autoencoder::Error as E;
    match error {
        E::Core(e) => core_by_user(e),
        E::Mask(e) => mask_by_user(e),
        E::Nn(e) => nn_by_user(e),
        E::Invalid { .. } | E::Mismatch { .. } => true,
        _ => false,
    }
}

fn diffusion_by_user(error: &diffusion::Error) -> bool {
    use diffusion::Error as E;
    match error {
        E::Core(e) => core_by_user(e),
        E::Invalid { .. }
        | E::UnknownName { .. }
        | E::Shape { .. }
        | E::Unfit { .. }
        | E::EpsilonAtZeroSnr
        | E::Step { .. } => true,
        _ => false,
    }
}

fn foundation_by_user(error: &foundation::Error) -> bool {
    use foundation::Error as E;
    match error {
        E::Core(e) => core_by_user(e),
        E::Mask(e) => mask_by_user(e),
        E::Nn(e) => nn_by_user(e),
        E::Autoencoder(e) => autoencoder_by_user(e),
        E::Diffusion(e) => diffusion_by_user(e),
        E::Train(e) => train_by_user(e),
        E::Invalid { .. } | E::File { .. } => true,
        _ => false,
    }
}

fn tasks_by_user(error: &tasks::Error) -> bool {
    use tasks::Error as E;
    match error {
        E::Core(e) => core_by_user(e),
        E::Mask(e) => mask_by_user(e),
        E::Radon(e) => radon_by_user(e),
        E::Metrics(e) => metrics_by_user(e),
        E::Nn(e) => nn_by_user(e),
        E::Autoencoder(e) => autoencoder_by_user(e),
        E::Diffusion(e) => diffusion_by_user(e),
        E::Foundation(e) => foundation_by_user(e),
        E::Train(e) => train_by_user(e),
        E::Invalid { .. } | E::Mismatch { .. } => true,
        _ => false,
    }
}

macro_rules! judge {
    ($($error:ty => $by_user:ident;)+) => {
        $(impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Self::judged($by_user(&error), error.to_string())
            }
        })+
    };
}

judge! {
    core::Error => core_by_user;
    io::Error => io_by_user;
    radon::Error => radon_by_user;
    mask::Error => mask_by_user;
    metrics::Error => metrics_by_user;
    sim::Error => sim_by_user;
    nn::Error => nn_by_user;
    train::Error => train_by_user;
    autoencoder::Error => autoencoder_by_user;
    foundation::Error => foundation_by_user;
    tasks::Error => tasks_by_user;
}

impl From<candle::Error> for Fault {
    fn from(error: candle::Error) -> Self {
        Self::Other(error.to_string())
    }
}
