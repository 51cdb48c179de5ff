//! BTF made by hand, byte by byte, so that each rule of the resolver is met by a case that breaks without it.

use proptest::prelude::*;

use super::*;

/// Builds a BTF blob.
#[derive(Default)]
struct Blob {
    types: Vec<u8>,
    strings: Vec<u8>,
}

impl Blob {
    fn new() -> Self {
        Blob { types: Vec::new(), strings: vec![0] }
    }

    fn string(&mut self, s: &str) -> u32 {
        if s.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(s.as_bytes());
        self.strings.push(0);
        at
    }

    fn words(&mut self, words: &[u32]) {
        for word in words {
            self.types.extend_from_slice(&word.to_le_bytes());
        }
    }

    fn int(&mut self, name: &str, size: u32) {
        let name = self.string(name);
        self.words(&[name, 1 << 24, size, size * 8]);
    }

    fn aggregate(&mut self, kind: u8, name: &str, size: u32, members: &[(&str, u32, u32)]) {
        let name = self.string(name);
        self.words(&[name, u32::from(kind) << 24 | members.len() as u32, size]);
        for (member, id, bits) in members {
            let member = self.string(member);
            self.words(&[member, *id, *bits]);
        }
    }

    fn simple(&mut self, kind: u8, name: &str, of: u32) {
        let name = self.string(name);
        self.words(&[name, u32::from(kind) << 24, of]);
    }

    fn array(&mut self, element: u32, len: u32) {
        self.words(&[0, u32::from(KIND_ARRAY) << 24, 0, element, element, len]);
    }

    fn build(&self) -> Vec<u8> {
        let mut data = Vec::new();
        data.extend_from_slice(&MAGIC.to_le_bytes());
        data.extend_from_slice(&[1, 0]);
        for word in [24, 0, self.types.len() as u32, self.types.len() as u32, self.strings.len() as u32] {
            data.extend_from_slice(&word.to_le_bytes());
        }
        data.extend_from_slice(&self.types);
        data.extend_from_slice(&self.strings);
        data
    }
}

/// 1 u32, 2 anonymous union { u32 b @0 }, 3 struct outer { u32 a; union; inner_t c @64 }, 4 struct inner { u32 x; u32 y[4] @32 },
/// 5 typedef inner_t → 4, 6 u32[4]
fn sample() -> Blob {
    let mut blob = Blob::new();
    blob.int("u32", 4);
    blob.aggregate(KIND_UNION, "", 4, &[("b", 1, 0)]);
    blob.aggregate(KIND_STRUCT, "outer", 28, &[("a", 1, 0), ("", 2, 32), ("c", 5, 64)]);
    blob.aggregate(KIND_STRUCT, "inner", 20, &[("x", 1, 0), ("y", 6, 32)]);
    blob.simple(8, "inner_t", 4);
    blob.array(1, 4);
    blob
}

#[test]
fn walks_anonymous_members_typedefs_and_arrays() {
    let btf = Btf::parse(sample().build()).unwrap();
    assert_eq!(btf.place("outer", "a"), Ok(Place { offset: 0, size: 4 }));
    assert_eq!(btf.place("outer", "b"), Ok(Place { offset: 4, size: 4 }));
    assert_eq!(btf.place("outer", "c.x"), Ok(Place { offset: 8, size: 4 }));
    assert_eq!(btf.place("outer", "c.y"), Ok(Place { offset: 12, size: 16 }));
    assert_eq!((btf.structure_size("outer"), btf.structure_size("inner_t")), (Some(28), None));
}

#[test]
fn says_what_is_missing() {
    let btf = Btf::parse(sample().build()).unwrap();
    assert_eq!(btf.place("nothing", "a"), Err(BtfError::NoStructure("nothing".into())));
    assert_eq!(btf.place("outer", "c.z"), Err(BtfError::NoField { structure: "outer".into(), path: "c.z".into() }));
}

#[test]
fn definitions_that_disagree_are_refused_and_equal_ones_are_one() {
    let mut blob = sample();
    blob.aggregate(KIND_STRUCT, "inner", 20, &[("x", 1, 0), ("z", 1, 64)]);
    let btf = Btf::parse(blob.build()).unwrap();
    assert_eq!(btf.place("inner", "x"), Ok(Place { offset: 0, size: 4 }), "both have x in the same place");
    blob.aggregate(KIND_STRUCT, "inner", 20, &[("x", 1, 32)]);
    let btf = Btf::parse(blob.build()).unwrap();
    assert_eq!(btf.place("inner", "x"), Err(BtfError::Ambiguous("inner".into())));
}

#[test]
fn a_forward_declaration_does_not_hide_the_definition() {
    let mut blob = Blob::new();
    // BTF_KIND_FWD
    blob.simple(7, "nf_conn", 0);
    assert_eq!(Btf::parse(blob.build()).unwrap().place("nf_conn", "status"), Err(BtfError::NoStructure("nf_conn".into())));
    blob.int("u32", 4);
    blob.aggregate(KIND_STRUCT, "nf_conn", 4, &[("status", 2, 0)]);
    let btf = Btf::parse(blob.build()).unwrap();
    assert_eq!(btf.place("nf_conn", "status"), Ok(Place { offset: 0, size: 4 }));
}

#[test]
fn a_module_continues_the_kernels_numbering() {
    let base = sample();
    let kernel = Btf::parse(base.build()).unwrap();
    // Types 1 to 6 and the strings are the kernel's; type 7 is the module's.
    let name = base.strings.len() as u32;
    let mut module = Blob { types: Vec::new(), strings: b"nf_conn\0field\0".to_vec() };
    module.words(&[name, u32::from(KIND_STRUCT) << 24 | 1, 20, name + 8, 5, 64]);
    let both = kernel.with_module(module.build()).unwrap();
    assert_eq!(both.place("nf_conn", "field.y"), Ok(Place { offset: 12, size: 16 }));
    assert_eq!(kernel.place("nf_conn", "field"), Err(BtfError::NoStructure("nf_conn".into())));
}

/// typedef → pointer → prototype whose first parameter is the probe's own.
fn traced(parameters: u32) -> Btf {
    let mut blob = Blob::new();
    blob.int("u64", 8);
    blob.words(&[0, u32::from(KIND_FUNC_PROTO) << 24 | parameters, 0]);
    for _ in 0..parameters {
        blob.words(&[0, 1]);
    }
    blob.simple(KIND_PTR, "", 2);
    blob.simple(KIND_TYPEDEF, "btf_trace_kfree_skb", 3);
    blob.simple(KIND_TYPEDEF, "btf_trace_odd", 1);
    blob.simple(KIND_FUNC, "freed", 2);
    Btf::parse(blob.build()).unwrap()
}

#[test]
fn counts_a_tracepoints_arguments() {
    assert_eq!(traced(3).tracepoint_arguments("kfree_skb"), Some(2), "packet and location: a kernel before 5.17");
    assert_eq!(traced(5).tracepoint_arguments("kfree_skb"), Some(4));
    assert_eq!(traced(0).tracepoint_arguments("kfree_skb"), None);
    assert_eq!(traced(5).tracepoint_arguments("consume_skb"), None);
    assert_eq!(traced(5).tracepoint_arguments("odd"), None, "not a pointer");
    assert!(traced(5).has_function("freed") && !traced(5).has_function("odd"));
}

#[test]
fn reads_enumerators() {
    let mut blob = Blob::new();
    let (name, one, two) = (blob.string("skb_drop_reason"), blob.string("SKB_DROP_REASON_A"), blob.string("SKB_DROP_REASON_B"));
    blob.words(&[name, u32::from(KIND_ENUM) << 24 | 2, 4, one, 3, two, 0x10001]);
    let btf = Btf::parse(blob.build()).unwrap();
    let values = btf.enumerators("skb_drop_reason");
    assert_eq!(values.get(&3).map(String::as_str), Some("SKB_DROP_REASON_A"));
    assert_eq!(values.get(&0x10001).map(String::as_str), Some("SKB_DROP_REASON_B"));
}

#[test]
fn garbage_is_an_error() {
    assert_eq!(Btf::parse(Vec::new()).unwrap_err(), BtfError::Format("shorter than its header"));
    assert_eq!(Btf::parse(vec![0; 100]).unwrap_err(), BtfError::Format("wrong magic number"));
    let mut blob = Blob::new();
    blob.words(&[0, 31 << 24, 0]);
    assert_eq!(Btf::parse(blob.build()).unwrap_err(), BtfError::UnknownKind { id: 1, kind: 31 });
}

proptest! {
    #[test]
    fn never_panics(flips in prop::collection::vec((0usize..400, any::<u8>()), 0..20), cut in 0usize..400) {
        let mut data = sample().build();
        let len = data.len();
        for (at, value) in flips {
            data[at % len] = value;
        }
        data.truncate(len - cut % len);
        if let Ok(btf) = Btf::parse(data) {
            let _ = btf.place("outer", "c.y");
            let _ = btf.enumerators("outer");
            let _ = btf.tracepoint_arguments("kfree_skb");
        }
    }
}
