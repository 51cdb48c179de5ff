//! How much of the verifier's patience the programs need on this kernel.

use netpol_observer::capture::kernel::Kernel;
use netpol_observer::capture::verifier::{verified, verified_by_log};
use netpol_observer::capture::{Form, TRACEPOINT};
use xtask::testing::{Row, RowResult, row};

use crate::support::{btf_file, machine};

/// Two fifths of the kernel's own limit (`BPF_COMPLEXITY_LIMIT_INSNS`): kernels differ by how well they prune, and there shall be room for that.
const BOUND: u32 = 400_000;

#[test]
fn the_programs_stay_far_below_the_limit() {
    let Some(_machine) = machine("verifier::the_programs_stay_far_below_the_limit") else { return };
    let btf = btf_file();
    let kernel = Kernel::read(btf.as_deref()).unwrap();
    for form in [Form::Typed, Form::Raw] {
        if form == Form::Typed && !kernel.has_typed_tracepoint(TRACEPOINT) {
            continue;
        }
        for program in verified(form, btf.as_deref()).unwrap_or_else(|error| panic!("{error}")) {
            assert!(program.instructions < BOUND, "{program:?}");
            assert!(program.instructions > 100, "{program:?}: that was another program");
            row(&Row {
                shape: format!("verifier instructions, {}", program.program),
                family: String::new(),
                result: RowResult::Pass,
                found: program.instructions.to_string(),
            });
        }
    }
}

/// The way that kernels before 5.16 need gives the same numbers.
#[test]
fn the_log_tells_the_same() {
    let Some(_machine) = machine("verifier::the_log_tells_the_same") else { return };
    let btf = btf_file();
    let told = verified(Form::Raw, btf.as_deref()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(told, verified_by_log(Form::Raw, btf.as_deref()).unwrap_or_else(|error| panic!("{error}")));
}
