# -- What a removal while cut leaves behind (prerm), and takes back: part of all three scripts.

left=/etc/ecluse/left-cut
left_unit=/etc/systemd/system/ecluse-left-cut.service
left_wanted=/etc/systemd/system/sysinit.target.wants/ecluse-left-cut.service
left_drop_in=/etc/systemd/system/nftables.service.d/ecluse-left-cut.conf

take_back_left_cut() {
    rm -rf "$left"
    rm -f "$left_unit" "$left_wanted" "$left_drop_in"
    rmdir "${left_drop_in%/*}" 2>/dev/null || true
}

# -- End of that part.
