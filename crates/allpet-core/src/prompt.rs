//! The vocabulary of prompts: tracer, anatomical region, modality and task, and the free text that names them.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// One closed vocabulary: an enum with stable indices, names, and words that mean them.
macro_rules! vocabulary {
    ($(#[$doc:meta])* $name:ident, $what:literal, { $($(#[$vdoc:meta])* $variant:ident = $id:literal, $label:literal, [$($word:literal),*];)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $id)] $variant,)+ }

        impl $name {
            /// Every member, in the order of [`Self::index`].
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Stable position in the vocabulary: files and weights depend on it.
            pub fn index(self) -> usize { self as usize }

            /// The member at a position.
            pub fn from_index(index: usize) -> Option<Self> { Self::ALL.get(index).copied() }

            /// The word used on the command line and in files.
            pub fn id(self) -> &'static str { match self { $(Self::$variant => $id,)+ } }

            /// The word for people.
            pub fn label(self) -> &'static str { match self { $(Self::$variant => $label,)+ } }

            fn lookup(word: &str) -> Option<Self> {
                match word { $($id $(| $word)* => Some(Self::$variant),)+ _ => None }
            }

            fn known() -> String { Self::ALL.iter().map(|m| m.id()).collect::<Vec<_>>().join(", ") }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.label()) }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(word: &str) -> Result<Self> {
                Self::lookup(&word.trim().to_lowercase()).ok_or_else(|| Error::UnknownWord {
                    what: $what, word: word.to_owned(), known: Self::known(),
                })
            }
        }
    };
}

vocabulary!(
    /// The radiotracer.
    Tracer, "tracer", {
    /// `2-deoxy-2-[18F]fluoroglucose`.
    Fdg = "fdg", "18F-FDG", ["18f-fdg", "[18f]fdg", "f18-fdg"];
    /// `L-6-[18F]fluoro-3,4-dihydroxyphenylalanine`.
    Dopa = "dopa", "18F-DOPA", ["18f-dopa", "[18f]dopa", "fdopa", "f-dopa", "f18-dopa"];
    /// `[68Ga]Ga-PSMA-11`.
    Psma = "psma", "68Ga-PSMA", ["68ga-psma", "[68ga]psma", "psma-11", "68ga-psma-11", "ga68-psma"];
});

vocabulary!(
    /// The part of the body. A trunk is a chest or an abdomen.
    Region, "region", {
    /// Head.
    Brain = "brain", "brain", ["head"];
    /// Chest or abdomen, not said which.
    Trunk = "trunk", "trunk", ["torso", "body"];
    /// Thorax.
    Chest = "chest", "chest", ["thorax"];
    /// Abdomen.
    Abdomen = "abdomen", "abdomen", ["belly"];
});

vocabulary!(
    /// What the scanner measured.
    Modality, "modality", {
    /// Emission.
    Pet = "pet", "PET", [];
    /// Transmission: attenuation line integrals.
    Ct = "ct", "CT", [];
});

vocabulary!(
    /// What the model is asked to do.
    Task, "task", {
    /// Unpaired synthesis.
    Synthesis = "synthesis", "synthesis", ["synthesise", "synthesize"];
    /// Low-dose to standard dose.
    LowDose = "low-dose", "low-dose reconstruction", ["lowdose"];
    /// Attenuated to attenuation-corrected.
    Attenuation = "attenuation", "attenuation correction", ["attenuation-correction"];
    /// Early to delayed frame.
    Delayed = "delayed", "delayed-frame prediction", ["delayed-frame"];
    /// One tracer to another.
    Conversion = "conversion", "tracer conversion", [];
    /// Dual-tracer separation.
    Separation = "separation", "dual-tracer separation", [];
});

/// What a sample shows, or what is asked for. `None` leaves a choice open: the model's unconditional answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// Tracer; `None` for CT or when left open.
    pub tracer: Option<Tracer>,
    /// Region; `None` when left open.
    pub region: Option<Region>,
    /// Modality.
    pub modality: Modality,
    /// Task.
    pub task: Task,
}

impl Default for Prompt {
    fn default() -> Self {
        Self {
            tracer: None,
            region: None,
            modality: Modality::Pet,
            task: Task::Synthesis,
        }
    }
}

impl fmt::Display for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.region.map_or("any region", Region::label))?;
        match (self.modality, self.tracer) {
            (Modality::Ct, _) => f.write_str(" CT")?,
            (Modality::Pet, Some(tracer)) => write!(f, " with {tracer}")?,
            (Modality::Pet, None) => f.write_str(" with any tracer")?,
        }
        if self.task != Task::Synthesis {
            write!(f, ", {}", self.task)?;
        }
        Ok(())
    }
}

impl Prompt {
    /// A PET prompt for synthesis.
    pub fn pet(tracer: Tracer, region: Region) -> Self {
        Self {
            tracer: Some(tracer),
            region: Some(region),
            ..Self::default()
        }
    }

    /// A CT prompt for synthesis: attenuation has no tracer.
    pub fn ct(region: Region) -> Self {
        Self {
            region: Some(region),
            modality: Modality::Ct,
            ..Self::default()
        }
    }

    /// Reads free text such as `brain with 18F-FDG`, `chest or abdomen with 68Ga-PSMA`, `CT of the abdomen`.
    ///
    /// Each kind of word may stand once, except alternatives joined by `or`: one prompt per alternative comes
    /// back, and samples take them in turn.
    ///
    /// # Errors
    /// An unknown word, listing those known; two words of a kind that are not alternatives; an empty text.
    pub fn parse(text: &str) -> Result<Vec<Self>> {
        let invalid = |fault: String| Error::Invalid {
            what: format!("prompt `{text}`"),
            faults: vec![fault],
        };
        let mut tracers: Vec<Tracer> = Vec::new();
        let mut regions: Vec<Region> = Vec::new();
        let mut modality: Option<Modality> = None;
        let mut task: Option<Task> = None;
        let mut after_or = false;
        for word in text
            .split(|c: char| c.is_whitespace() || c == ',')
            .filter(|w| !w.is_empty())
        {
            let lower = word.to_lowercase();
            if lower == "or" {
                after_or = true;
                continue;
            }
            if [
                "with", "of", "the", "a", "an", "in", "and", "scan", "image", "sinogram", "for",
            ]
            .contains(&&*lower)
            {
                continue;
            }
            if let Some(found) = Tracer::lookup(&lower) {
                push_choice(&mut tracers, found, after_or).map_err(invalid)?;
            } else if let Some(found) = Region::lookup(&lower) {
                push_choice(&mut regions, found, after_or).map_err(invalid)?;
            } else if let Some(found) = Modality::lookup(&lower) {
                if modality.replace(found).is_some_and(|before| before != found) {
                    return Err(invalid("names two modalities; expected one".to_owned()));
                }
            } else if let Some(found) = Task::lookup(&lower) {
                if task.replace(found).is_some_and(|before| before != found) {
                    return Err(invalid("names two tasks; expected one".to_owned()));
                }
            } else {
                return Err(Error::UnknownWord {
                    what: "prompt word",
                    word: word.to_owned(),
                    known: Self::known_words(),
                });
            }
            after_or = false;
        }
        if tracers.is_empty() && regions.is_empty() && modality.is_none() && task.is_none() {
            return Err(invalid(format!(
                "names nothing; known words: {}",
                Self::known_words()
            )));
        }
        let modality = modality.unwrap_or(Modality::Pet);
        if modality == Modality::Ct && !tracers.is_empty() {
            return Err(invalid(
                "names a tracer and CT; attenuation has no tracer".to_owned(),
            ));
        }
        let task = task.unwrap_or(Task::Synthesis);
        let open_or = |n: usize| n.max(1);
        let mut prompts = Vec::with_capacity(open_or(tracers.len()) * open_or(regions.len()));
        for t in 0..open_or(tracers.len()) {
            for r in 0..open_or(regions.len()) {
                prompts.push(Self {
                    tracer: tracers.get(t).copied(),
                    region: regions.get(r).copied(),
                    modality,
                    task,
                });
            }
        }
        Ok(prompts)
    }

    fn known_words() -> String {
        format!(
            "{}, {}, {}, {}",
            Tracer::known(),
            Region::known(),
            Modality::known(),
            Task::known()
        )
    }
}

fn push_choice<T: PartialEq + fmt::Display>(
    list: &mut Vec<T>,
    found: T,
    after_or: bool,
) -> std::result::Result<(), String> {
    if list.contains(&found) {
        return Ok(());
    }
    if !list.is_empty() && !after_or {
        return Err(format!(
            "names both {} and {found}; join alternatives by `or`",
            list[0]
        ));
    }
    list.push(found);
    Ok(())
}
