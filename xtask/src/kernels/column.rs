//! What the tests run on, by the names that `--kernel` takes and docs/kernels.md has as columns.

/// A kernel, or one in a certain state.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Column {
    /// As `--kernel` takes it.
    pub(super) name: &'static str,
    pub(super) place: Place,
}

/// Where it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a guest, with a kernel of this series.
    Guest { series: &'static str, types: Types },
    /// On this machine, as it is.
    Host,
}

/// What becomes of the kernel's own type information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Types {
    /// As the kernel has it.
    Shown,
    /// Nothing is left in /sys/kernel/btf, and what was there is in a file: like a kernel that was built without, and a file from elsewhere.
    Hidden,
}

/// All of them, in the order of the documentation.
pub(super) const COLUMNS: &[Column] = &[
    guest("5.10", "5.10", Types::Shown),
    guest("5.10-no-btf", "5.10", Types::Hidden),
    guest("6.1", "6.1", Types::Shown),
    guest("6.12", "6.12", Types::Shown),
    guest("7", "7", Types::Shown),
    Column { name: "host", place: Place::Host },
];

const fn guest(name: &'static str, series: &'static str, types: Types) -> Column {
    Column { name, place: Place::Guest { series, types } }
}

impl Column {
    /// Those of these names; of no names: all guests.
    pub(super) fn chosen(names: &[String]) -> Vec<&'static Column> {
        let wanted =
            |column: &&Column| if names.is_empty() { column.place != Place::Host } else { names.iter().any(|name| name == column.name) };
        COLUMNS.iter().filter(wanted).collect()
    }

    /// The names.
    pub(super) fn names() -> Vec<&'static str> {
        COLUMNS.iter().map(|column| column.name).collect()
    }
}
