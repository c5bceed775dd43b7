# Sourced by deps.sh: what only `make deb` needs.

try_dpkg() { dpkg-deb --version && dpkg-shlibdeps --version && dpkg-architecture -qDEB_HOST_MULTIARCH; }
need dpkg dpkg-dev - "making Debian packages"
