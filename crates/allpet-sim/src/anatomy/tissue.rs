//! The tissues the anatomy is made of, with their attenuation of 511 keV photons.

macro_rules! tissues {
    ($($(#[$doc:meta])* $name:ident = $mu:literal,)+) => {
        /// What is at a point of the body.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Tissue { $($(#[$doc])* $name,)+ }

        impl Tissue {
            /// Every tissue, in the order of its index.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Linear attenuation coefficient at 511 keV in cm⁻¹ (NIST XCOM values for water, soft tissue, brain,
            /// muscle, fat, lung and cortical bone; mixtures in between).
            pub fn attenuation_per_cm(self) -> f32 { match self { $(Self::$name => $mu,)+ } }
        }
    };
}

tissues! {
    /// Outside the body, airways, bowel gas.
    Air = 0.0,
    /// Skin and scalp.
    Skin = 0.1000,
    /// Adipose tissue.
    Fat = 0.0913,
    /// Skeletal muscle.
    Muscle = 0.0999,
    /// Cortical bone.
    Bone = 0.1600,
    /// Trabecular bone with red marrow.
    Marrow = 0.1180,
    /// Cerebrospinal fluid and vitreous body.
    Csf = 0.0960,
    /// Cortical grey matter.
    Grey = 0.0994,
    /// White matter.
    White = 0.0994,
    /// Caudate nucleus and putamen.
    Striatum = 0.0994,
    /// Thalamus.
    Thalamus = 0.0994,
    /// Cerebellar cortex.
    CerebellumGrey = 0.0994,
    /// Cerebellar white matter.
    CerebellumWhite = 0.0994,
    /// Midbrain, pons, medulla.
    Brainstem = 0.0994,
    /// Lacrimal gland.
    Lacrimal = 0.1000,
    /// Parotid gland.
    Parotid = 0.1000,
    /// Nasal and oral mucosa.
    Mucosa = 0.0990,
    /// Blood in heart chambers, great vessels and venous sinuses.
    Blood = 0.1008,
    /// Aerated lung.
    Lung = 0.0317,
    /// Left-ventricular wall.
    Myocardium = 0.1008,
    /// Oesophagus.
    Oesophagus = 0.1000,
    /// Breast gland.
    Gland = 0.0960,
    /// Liver.
    Liver = 0.1010,
    /// Spleen.
    Spleen = 0.1010,
    /// Cortex of the kidney.
    KidneyCortex = 0.1008,
    /// Medulla of the kidney.
    KidneyMedulla = 0.1000,
    /// Urine in the renal pelvis.
    RenalPelvis = 0.0965,
    /// Wall of the stomach.
    StomachWall = 0.1000,
    /// Food, water.
    StomachContent = 0.0965,
    /// Small and large bowel.
    Bowel = 0.0990,
    /// Duodenum and proximal jejunum.
    Duodenum = 0.0995,
    /// Pancreas.
    Pancreas = 0.1000,
    /// Gallbladder.
    Gallbladder = 0.0965,
    /// Urine in the bladder.
    Bladder = 0.0968,
    /// Prostate or uterus.
    Prostate = 0.1005,
    /// Spinal cord and intervertebral soft parts.
    Cord = 0.0995,
}

impl Tissue {
    /// Number of tissues.
    pub const COUNT: usize = Self::ALL.len();

    /// Position in [`Tissue::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}
