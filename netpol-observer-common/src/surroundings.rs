//! What user space asks the kernel about a drop's surroundings: whose filters are registered at its hook, and what lies at
//! the other end of its device, and whose its socket is. Asked when it is wanted, by running the programs `surroundings` and
//! `cgroup_names`; nothing of it happens per packet.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A device, or with `ifindex` 0 a namespace as such, that a record came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DeviceKey {
    /// As in [`DropRecord::netns`](crate::DropRecord::netns).
    pub netns: u32,
    /// As in [`DropRecord::ifindex`](crate::DropRecord::ifindex).
    pub ifindex: u32,
}

/// Where it was in kernel memory when the record was written. It may be gone: whoever uses it reads with checks and compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DeviceAddress {
    /// `struct net_device *`, 0 without one.
    pub device: u64,
    /// `struct net *`
    pub net: u64,
}

/// How many [`DeviceAddress`]es are kept; the ones longest unused go first.
pub const DEVICES: u32 = 4096;

/// Functions at a hook that are looked at.
pub const MAX_HOOK_ENTRIES: usize = 16;

/// Bytes kept of the name of a table or chain (`NFT_NAME_MAXLEN` is 256; names this long are not in use).
pub const NAME_BYTES: usize = 64;

/// The kernel fields that these programs follow; the discriminant is the place in its table of offsets. All may be
/// [`ABSENT`](crate::ABSENT): then what they lead to is not known. They come from modules, and may appear while the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Way {
    /// `net.ns.inum`
    NetInum,
    /// Private data behind `struct net_device` (`netdev_priv()`): of a veth or netkit device its peer comes first.
    DevicePrivate,
    /// `net_device.rtnl_link_ops`
    DeviceLinkOps,
    /// `rtnl_link_ops.kind`
    LinkOpsKind,
    /// `net_device.ifindex`
    DeviceIfindex,
    /// `net_device.name`
    DeviceName,
    /// `net_device.nd_net.net`
    DeviceNet,
    /// `nf_hook_entries.num_hook_entries`
    HookCount,
    /// `nf_hook_entries.hooks`; the array of `nf_hook_ops` pointers follows it (`nf_hook_entries_get_hook_ops()`).
    Hooks,
    /// `nf_hook_ops.priority`
    HookPriority,
    /// `nft_chain.name`
    ChainName,
    /// `nft_chain.table`
    ChainTable,
    /// `nft_table.name`
    TableName,
    /// `xt_table.name`
    XtTableName,
    /// `kernfs_node.id`
    KernfsId,
    /// `kernfs_node.name`
    KernfsName,
    /// `kernfs_node.parent`, from 6.15 on `__parent`
    KernfsParent,
}

impl Way {
    /// How many there are.
    pub const COUNT: usize = 17;
}

/// A function at a netfilter hook.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HookEntry {
    /// `nf_hook_entry.hook`
    pub function: u64,
    /// `nf_hook_ops.priority`: lower ones run first.
    pub priority: i32,
    /// Zero.
    pub reserved: u32,
    /// If `nf_hook_entry.priv` is an `nft_chain`: the name of its table.
    pub nft_table: [u8; NAME_BYTES],
    /// Likewise its own name.
    pub nft_chain: [u8; NAME_BYTES],
    /// If it is an `xt_table`: its name.
    pub xt_table: [u8; 32],
}

/// What the program found.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Surroundings {
    /// Inode number of the namespace at the remembered address. Another than the one asked for: it is gone. 0: nothing is remembered.
    pub netns: u32,
    /// Namespace of the device's other end, 0 without one.
    pub peer_netns: u32,
    /// Index of the other end in its namespace.
    pub peer_ifindex: u32,
    /// Functions at the hook; may be more than [`MAX_HOOK_ENTRIES`].
    pub hooks: u32,
    /// Name of the other end, NUL padded.
    pub peer_name: [u8; 16],
    /// `rtnl_link_ops.kind` of the device, NUL padded: `veth`.
    pub kind: [u8; 16],
    /// The functions, in the order they run.
    pub entries: [HookEntry; MAX_HOOK_ENTRIES],
}

/// How many cgroups' addresses are kept; the ones longest unused go first.
pub const CGROUPS: u32 = 4096;

/// A cgroup and its ancestors as far as they are looked at. The kubelet's of a pod is one above that of its container's; containers may have more below.
pub const CGROUP_LEVELS: usize = 8;

/// Bytes kept of the name of a cgroup. The longest of interest is `kubelet-kubepods-besteffort-pod` with a uid and `.slice`.
pub const CGROUP_NAME_BYTES: usize = 96;

/// What the `cgroup_names` program found.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CgroupNames {
    /// `kernfs_node.id` at the remembered address. Another than the one asked for: it is gone. 0: nothing is remembered.
    pub id: u64,
    /// `kernfs_node.name`, its own first, then its parent's and so on; NUL padded, empty behind the root. Longer ones are cut.
    pub names: [[u8; CGROUP_NAME_BYTES]; CGROUP_LEVELS],
}

const _: () = assert!(size_of::<CgroupNames>() == 8 + CGROUP_LEVELS * CGROUP_NAME_BYTES);
const _: () = assert!(size_of::<HookEntry>() == 176);
const _: () = assert!(size_of::<Surroundings>() == 48 + MAX_HOOK_ENTRIES * 176);
