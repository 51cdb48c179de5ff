//! How much of the verifier's patience the programs need on this kernel.

use netpol_observer::capture::kernel::Kernel;
use netpol_observer::capture::verifier::{verified, verified_by_log};
use netpol_observer::capture::{Form, TRACEPOINT};
use xtask::testing::{Row, RowResult, row};

use crate::support::{btf_file, machine};

/// A fifth of the kernel's own limit (`BPF_COMPLEXITY_LIMIT_INSNS`): kernels differ by how well they prune, and there shall be room for that.
const BOUND: u32 = 200_000;

#[test]
fn the_programs_stay_far_below_the_limit() {
    let Some(_machine) = machine("verifier::the_programs_stay_far_below_the_limit") else { return };
    let btf = btf_file();
    let kernel = Kernel::read(btf.as_deref()).unwrap();
    for form in [Form::Typed, Form::Raw] {
        if form == Form::Typed && !kernel.has_typed_tracepoint(TRACEPOINT) {
            continue;
        }
        let mut loaded = Vec::new();
        for program in verified(form, btf.as_deref()).unwrap_or_else(|error| panic!("{error}")) {
            assert!(program.instructions < BOUND, "{program:?}");
            assert!(program.instructions > 100, "{program:?}: that was another program");
            told(program.program, RowResult::Pass, &program.instructions.to_string());
            loaded.push(program.program);
        }
        for program in form.programs().into_iter().filter(|program| !loaded.iter().any(|loaded| loaded == program)) {
            told(program, RowResult::CannotRun, "not loaded: this kernel does not guard programs against recursion");
        }
    }
}

fn told(program: &str, result: RowResult, found: &str) {
    row(&Row { shape: format!("verifier instructions, {program}"), family: String::new(), result, found: found.to_owned() });
}

/// The way that kernels before 5.16 need gives the same numbers.
#[test]
fn the_log_tells_the_same() {
    let Some(_machine) = machine("verifier::the_log_tells_the_same") else { return };
    let btf = btf_file();
    let told = verified(Form::Raw, btf.as_deref()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(told, verified_by_log(Form::Raw, btf.as_deref()).unwrap_or_else(|error| panic!("{error}")));
}
