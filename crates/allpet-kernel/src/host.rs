//! The kernels' text read by a C compiler and run on the host.

use crate::{ARGUMENTS, Element, Machine, Unit};
use libloading::{Library, Symbol};
use std::collections::HashMap;
use std::convert::Infallible;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

type Kernel = unsafe extern "C" fn(*const i32, *const u64);

/// A machine for tests: kernels are libraries that a C compiler makes when they are first needed.
#[derive(Debug)]
pub struct Host {
    element: Element,
    compiler: String,
    definitions: String,
    libraries: Mutex<HashMap<&'static str, Library>>,
}

impl Host {
    /// With a C compiler (`cc`), further definitions of the text, and blocks and threads in rising or (`backward`) falling
    /// order.
    pub fn new(compiler: &str, element: Element, definitions: &str, backward: bool) -> Self {
        let order = format!("#define BACKWARD {}\n", i32::from(backward));
        Self {
            element,
            compiler: compiler.to_owned(),
            definitions: element.definition().to_owned() + &order + definitions,
            libraries: Mutex::default(),
        }
    }

    fn library(&self, unit: &Unit) -> Library {
        let fault = |e: &dyn std::fmt::Display| -> ! { panic!("{}, {}: {e}", unit.name, self.compiler) };
        let folder = tempfile::tempdir().unwrap_or_else(|e| fault(&e));
        let (text, library) = (folder.path().join("kernels.c"), folder.path().join("kernels.so"));
        let source = self.definitions.clone() + include_str!("host.h") + crate::COMMON + unit.text;
        std::fs::write(&text, source).unwrap_or_else(|e| fault(&e));
        let done = Command::new(&self.compiler)
            .args(["-std=gnu11", "-O3", "-march=native", "-shared", "-fPIC", "-o"])
            .args([&library, &text])
            .arg("-lm")
            .output()
            .unwrap_or_else(|e| fault(&e));
        if !done.status.success() {
            fault(&String::from_utf8_lossy(&done.stderr));
        }
        // SAFETY: a library without initialisers.
        unsafe { Library::new(&library) }.unwrap_or_else(|e| fault(&e))
    }
}

/// Panics where the compiler or the text is at fault: this is for tests.
impl Machine for Host {
    type Memory = Vec<u64>;
    type Error = Infallible;

    fn element(&self) -> Element {
        self.element
    }

    fn scratch(&self, bytes: usize) -> Result<Vec<u64>, Infallible> {
        // Large enough that the allocator aligns to 16 bytes. NaN shows what was never written.
        Ok(vec![u64::MAX; bytes.div_ceil(8).max(64)])
    }

    fn address(&self, memory: &Vec<u64>) -> u64 {
        memory.as_ptr() as u64
    }

    fn launch(
        &self,
        unit: &'static Unit,
        kernel: &'static str,
        blocks: [usize; 3],
        arguments: [u64; ARGUMENTS],
    ) -> Result<(), Infallible> {
        let mut libraries = self.libraries.lock().unwrap_or_else(PoisonError::into_inner);
        let library = libraries.entry(unit.name).or_insert_with(|| self.library(unit));
        // SAFETY: every kernel has this signature; the caller passes addresses of live memory of the sizes it states.
        unsafe {
            let run: Symbol<'_, Kernel> = library
                .get(kernel)
                .unwrap_or_else(|e| panic!("{kernel} of {}: {e}", unit.name));
            run(blocks.map(|b| b as i32).as_ptr(), arguments.as_ptr());
        }
        Ok(())
    }
}
