# Sourced by guest.sh: the kernel and the initrd of the guest. About 60 MB, kept in the cache; 70 MB are fetched once.

# Loaded by the initrd before it can reach the host's files.
boot_modules=(virtio_pci 9pnet_virtio 9p overlay)
# Loaded next and from the same place, so that nothing a test counts on is left to auto-loading.
test_modules=(crc32_generic crc32c_generic crct10dif_generic veth rdma_rxe ib_uverbs rdma_ucm rdma_cm
    sch_netem ip_tables iptable_filter xt_tcpudp nf_tables nft_compat)
# What is kept of the kernel package, below lib/modules/<version>.
unpacked=('modules.*' 'kernel/net/*' 'kernel/lib/*' 'kernel/crypto/*' 'kernel/arch/*' 'kernel/fs/9p/*' 'kernel/fs/netfs/*'
    'kernel/fs/fscache/*' 'kernel/fs/overlayfs/*' 'kernel/fs/configfs/*' 'kernel/drivers/infiniband/*'
    'kernel/drivers/virtio/*' 'kernel/drivers/net/*')

# The newest kernel package that apt knows.
kernel_package() { apt-cache depends linux-image-amd64 2>/dev/null | awk '/Depends: linux-image/ { print $2; exit }'; }

fetch_kernel() { # FOLDER: unpacks vmlinuz and lib/modules there
    local folder=$1 package patterns=() pattern version
    package=$(kernel_package)
    if [ -z "$package" ] && [ "$(id -u)" = 0 ]; then
        apt-get -qq update >&2 || true
        package=$(kernel_package)
    fi
    [ -n "$package" ] || skip "apt knows no package linux-image-amd64 to take the guest's kernel from"
    say "fetching $package for the guest"
    # apt's own user may not be able to write here.
    fetch() { (cd "$folder" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$package" >&2); }
    # Lists older than the mirror name versions that it no longer has.
    fetch || { [ "$(id -u)" = 0 ] && apt-get -qq update >&2 && package=$(kernel_package) && fetch; } ||
        die "could not download $package"
    for pattern in "${unpacked[@]}"; do patterns+=("./lib/modules/*/$pattern"); done
    dpkg-deb --fsys-tarfile "$folder"/linux-image-*.deb | tar -x -C "$folder" --wildcards './boot/vmlinuz-*' "${patterns[@]}" ||
        die "could not unpack $package"
    version=$(ls "$folder/lib/modules")
    rm -rf "$folder"/*.deb "$folder"/lib/modules/*/kernel/drivers/net/{ethernet,wireless,usb,can,hamradio}
    depmod -b "$folder" "$version" || die "depmod failed"
    mv "$folder/boot/vmlinuz-$version" "$folder/vmlinuz"
}

# Paths of the modules in load order, each once.
load_order() { # FOLDER MODULE...
    local folder=$1 module
    shift
    for module in "$@"; do modprobe -d "$folder" -S "$(ls "$folder/lib/modules")" --show-depends "$module" 2>/dev/null; done |
        awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}

build_initrd() { # FOLDER
    local folder=$1 root=$1/initrd applet file needed
    rm -rf "$root"
    mkdir -p "$root"/{bin,modules,proc,sys,dev,host,upper,root}
    cp "$(command -v busybox)" "$root/bin/busybox"
    for applet in sh mount insmod mkdir chroot; do ln -s busybox "$root/bin/$applet"; done
    load_order "$folder" "${boot_modules[@]}" "${test_modules[@]}" | while read -r file; do
        cp "$file" "$root/modules/"
        basename "$file" >>"$root/load"
    done
    for needed in 9p overlay rdma_rxe; do grep -q "^$needed\.ko" "$root/load" || die "the kernel package lacks $needed"; done
    cp "$here/guest/init" "$root/init"
    chmod +x "$root/init"
    (cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$folder/initrd.tmp" || die "could not build the initrd"
    mv "$folder/initrd.tmp" "$folder/initrd.gz"
    rm -rf "$root"
}

make_image() { # FOLDER: has vmlinuz, initrd.gz and lib/modules afterwards
    local folder=$1 recipe
    recipe=$(cat "$here/image.sh" "$here/guest/init" | cksum)
    if [ ! -s "$folder/vmlinuz" ]; then
        rm -rf "$folder" "$folder.new"
        mkdir "$folder.new"
        fetch_kernel "$folder.new"
        mv "$folder.new" "$folder" # complete or not there
    fi
    if [ ! -s "$folder/initrd.gz" ] || [ "$(cat "$folder/recipe" 2>/dev/null)" != "$recipe" ]; then
        build_initrd "$folder"
        echo "$recipe" >"$folder/recipe"
    fi
}
