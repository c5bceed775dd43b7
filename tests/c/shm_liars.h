/* Part of shm.c: what talks to the peer's socket by hand, without an engine, and means it ill. */
#ifndef SHM_LIARS_H
#define SHM_LIARS_H

/* The peer's socket, as everybody on the host can find it. */
static int socket_of(const peer_t *peer) {
    char path[64], line[512], wanted[64];
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    snprintf(path, sizeof path, "/proc/%d/fd", peer->pid);
    FILE *sockets = fopen("/proc/net/unix", "r");
    bool found = false;
    while (!found && sockets != NULL && fgets(line, sizeof line, sockets) != NULL) {
        char *at = strstr(line, "@mte-shm-");
        unsigned long inode = 0;
        if (at == NULL || sscanf(line, "%*s %*s %*s %*s %*s %*s %lu", &inode) != 1) continue;
        at[strcspn(at, "\n")] = '\0';
        DIR *fds = opendir(path);
        for (struct dirent *entry; fds != NULL && (entry = readdir(fds)) != NULL;) {
            char to[64] = "", link[330];
            snprintf(link, sizeof link, "%s/%s", path, entry->d_name);
            snprintf(wanted, sizeof wanted, "socket:[%lu]", inode);
            if (readlink(link, to, sizeof to - 1) > 0 && strcmp(to, wanted) == 0) found = true;
        }
        if (fds != NULL) closedir(fds);
        if (found) memcpy(name.sun_path + 1, at + 1, strlen(at + 1));
    }
    if (sockets != NULL) fclose(sockets);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name.sun_path + 1));
    if (!found || fd < 0 || connect(fd, (struct sockaddr *)&name, len) != 0) harness_give_up("the peer's socket");
    return fd;
}

/* The peer hangs up. */
static bool ends(int fd) {
    char reply[8192];
    struct pollfd poll_ = {.fd = fd, .events = POLLIN};
    for (int64_t end = now_ms() + END_MS; now_ms() < end;) {
        ssize_t n = poll(&poll_, 1, 1000) > 0 ? recv(fd, reply, sizeof reply, MSG_DONTWAIT) : -1;
        if (n == 0 || (n < 0 && errno == ECONNRESET)) return true;
    }
    return false;
}

/* Wire numbers of the transport (src/transport/shm/wire.rs). */
#define MAGIC 0x6d74655f73686d02u
enum { HELLO = 1, WELCOME, WRITES, WITHDRAW, ASK, ENDED, GRANT, SHARE, UNSHARE, RING, WAKE };

/* Greets the peer as one that is what it says: `cell` holds an incarnation, and `word`, which follows it once more, a number. */
static int greeted(const peer_t *peer, uint64_t *cell, uint64_t *word, const char *incarnation) {
    uint64_t hello[9] = {HELLO, MAGIC, cell[0], cell[1], 0, 0, (uintptr_t)cell, (uintptr_t)cell, *word};
    unsigned char *expected = (unsigned char *)&hello[4];
    for (int i = 0; i < 16; i++) sscanf(incarnation + 2 * i, "%2hhx", &expected[i]);
    int fd = socket_of(peer);
    uint64_t welcome[6] = {0};
    if (send(fd, hello, sizeof hello, MSG_NOSIGNAL) != sizeof hello || recv(fd, welcome, sizeof welcome, 0) != sizeof welcome ||
        welcome[0] != WELCOME || welcome[5] != 1)
        harness_give_up("a greeting");
    return fd;
}

static void strangers(const peer_t *peer) {
    uint64_t seed = 1, junk[640];
    int survived = 0;
    for (int round = 0; round < 200; round++) {
        int fd = socket_of(peer);
        for (size_t i = 0; i < COUNT(junk); i++) junk[i] = next_random(&seed);
        if (round % 4 != 0) junk[0] = (uint64_t)(round % 12);
        if (round % 8 == 1) junk[1] = MAGIC;
        size_t len = round % 3 == 0 ? next_random(&seed) % sizeof junk : 8 * (1 + next_random(&seed) % 200);
        send(fd, junk, len + 1, MSG_NOSIGNAL);
        survived += ends(fd);
        close(fd);
    }
    CHECK_EQ("200 strangers that talk nonsense are hung up on", survived, 200);
}

/* Sends a message with a descriptor beside it. */
static bool send_beside(int fd, const void *message, size_t len, int passed) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof passed)];
    } beside = {0};
    struct iovec piece = {(void *)(uintptr_t)message, len};
    struct msghdr all = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = beside.room, .msg_controllen = sizeof beside.room};
    struct cmsghdr *header = CMSG_FIRSTHDR(&all);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof passed);
    memcpy(CMSG_DATA(header), &passed, sizeof passed);
    return sendmsg(fd, &all, MSG_NOSIGNAL) == (ssize_t)len;
}

/* How many mappings of memory files of that name a process has. */
static int mappings_of(pid_t pid, const char *name) {
    char line[512], path[64], wanted[64];
    int count = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    snprintf(wanted, sizeof wanted, "memfd:%s", name);
    FILE *maps = fopen(path, "r");
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL) count += strstr(line, wanted) != NULL;
    if (maps != NULL) fclose(maps);
    return count;
}

/* A file that could end its reader: it may shrink, is short, is none, may be emptied, or has no pages (or not all, or 64 TiB). */
static int unsound(int kind, int socket) {
    if (kind == 2) return dup(socket);
    int file = memfd_create("unsound", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    off_t len = kind == 1 ? 4096 : kind == 6 ? (off_t)1 << 46 : (off_t)BYTES;
    bool done = ftruncate(file, len) == 0;
    if (kind == 3) done = done && fallocate(file, 0, 0, len) == 0;
    if (kind == 5) done = done && fallocate(file, 0, 0, len - 4096) == 0;
    int seals = F_SEAL_SHRINK | F_SEAL_GROW | (kind == 3 ? 0 : F_SEAL_WRITE);
    if (kind != 0) done = done && fcntl(file, F_ADD_SEALS, seals) == 0;
    if (!done) harness_give_up("a file");
    return file;
}

/* Shared memory that is taken away while the peer copies from it must not end the peer. */
static void shrinks(const peer_t *peer, uint64_t *cell, uint64_t *word, const char *incarnation, unsigned char *mine) {
    uint64_t answer[641];
    int before = mappings_of(peer->pid, "unsound");
    for (int kind = 0; kind < 7; kind++) {
        *word += 1;
        int fd = greeted(peer, cell, word, incarnation);
        int file = unsound(kind, fd);
        uint64_t share[] = {SHARE, 1, (uintptr_t)mine, kind == 6 ? (uint64_t)1 << 46 : BYTES};
        uint64_t write_[] = {WRITES, 8, (uintptr_t)mine + BYTES - 4096, peer->base, 4096, 1};
        CHECK("a file that could end its reader", send_beside(fd, share, sizeof share, file));
        if (kind == 0 && ftruncate(file, 0) != 0) harness_give_up("ftruncate");
        CHECK("a request from it", send(fd, write_, sizeof write_, MSG_NOSIGNAL) == sizeof write_);
        CHECK("is pulled by the kernel instead", recv(fd, answer, sizeof answer, 0) == 24 && answer[1] == 8 && answer[2] == 0);
        CHECK_EQ("and not mapped", mappings_of(peer->pid, "unsound"), before);
        close(file);
        close(fd);
    }
}

/* Somebody who never stops sending must not keep the peer from others. */
static void floods(const peer_t *peer, segment_id_t target, int fd) {
    fflush(NULL);
    pid_t children[2];
    for (size_t i = 0; i < COUNT(children); i++) {
        children[i] = fork();
        if (children[i] != 0) continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        uint64_t nothing[] = {WITHDRAW, 1};
        while (send(fd, nothing, sizeof nothing, MSG_NOSIGNAL) > 0) {}
        _exit(0);
    }
    int done = 0;
    for (int i = 0; i < 20; i++)
        done += transfer_once(engine, request(OPCODE_WRITE, bytes, target, peer->base, 4096), END_MS) == STATUS_COMPLETED;
    CHECK_EQ("WRITEs beside a flood", done, 20);
    for (size_t i = 0; i < COUNT(children); i++) {
        kill(children[i], SIGKILL);
        waitpid(children[i], NULL, 0);
    }
}

static void liars(const peer_t *peer, segment_id_t target, const char *incarnation) {
    uint64_t cell[3] = {11, 12, 13}, *word = &cell[2], answer[641];
    unsigned char *mine = map_bytes(BYTES);
    memset(mine, 0x77, BYTES);
    int fd = greeted(peer, cell, word, incarnation);
    uint64_t asks[] = {WRITES, 1, (uintptr_t)mine, peer->base + BYTES - 1, 2, 0, 2, 8, peer->base, 4096, 0, 3, (uintptr_t)mine, 8, 4096, 0,
                       4, (uintptr_t)mine, peer->base, 4096, 99};
    CHECK("requests good and bad", send(fd, asks, sizeof asks, MSG_NOSIGNAL) == sizeof asks);
    uint64_t ends_[5] = {9, 9, 9, 9, 9};
    for (size_t count = 0; count < 4;) {
        ssize_t n = recv(fd, answer, sizeof answer, 0);
        if (n <= 8 || answer[0] != ENDED) harness_give_up("an answer");
        for (size_t i = 1; i < (size_t)n / 8; i += 2, count++)
            if (answer[i] < 5) ends_[answer[i]] = answer[i + 1];
    }
    CHECK("each has its answer", ends_[1] == 1 && ends_[2] == 2 && ends_[3] == 1 && ends_[4] == 0);
    CHECK("and the good one its bytes", all_bytes(peer->view, 4096, 0x77));
    uint64_t ask[] = {ASK, 7, peer->base, 4096};
    CHECK("a question", send(fd, ask, sizeof ask, MSG_NOSIGNAL) == sizeof ask && recv(fd, answer, sizeof answer, 0) == 56);
    CHECK("is answered", answer[0] == GRANT && answer[1] == 7 && answer[2] == peer->base && answer[5] != 0);
    ask[2] = 8;
    CHECK("one about memory of others", send(fd, ask, sizeof ask, MSG_NOSIGNAL) == sizeof ask && recv(fd, answer, sizeof answer, 0) == 56);
    CHECK("is refused", answer[1] == 7 && answer[5] == 0);
    /* The word is what says that the connection is still wanted. */
    *word = 0;
    memset(mine, 0x33, BYTES);
    uint64_t late[] = {WRITES, 5, (uintptr_t)mine, peer->base, 4096, 0};
    CHECK("a request of a connection that was given up", send(fd, late, sizeof late, MSG_NOSIGNAL) == sizeof late);
    CHECK("is answered", recv(fd, answer, sizeof answer, 0) == 24 && answer[0] == ENDED && answer[1] == 5);
    CHECK("and not pulled", answer[2] == 4 && all_bytes(peer->view, 4096, 0x77));
    close(fd);
    *word = 14;
    fd = greeted(peer, cell, word, incarnation);
    uint64_t long_[] = {WRITES, 6, (uintptr_t)mine, peer->base, UINT64_MAX, 0};
    CHECK("a request without end", send(fd, long_, sizeof long_, MSG_NOSIGNAL) == sizeof long_);
    CHECK("ends the connection", ends(fd));
    close(fd);
    *word = 15;
    fd = greeted(peer, cell, word, incarnation);
    uint64_t share[] = {SHARE, 1, (uintptr_t)mine, BYTES};
    uint64_t from_it[] = {WRITES, 7, (uintptr_t)mine, peer->base, 4096, 1}, ring_[] = {RING, 8192};
    CHECK("shared memory without a descriptor", send(fd, share, sizeof share, MSG_NOSIGNAL) == sizeof share);
    CHECK("and a ring without one", send(fd, ring_, sizeof ring_, MSG_NOSIGNAL) == sizeof ring_);
    CHECK("a request from there", send(fd, from_it, sizeof from_it, MSG_NOSIGNAL) == sizeof from_it);
    CHECK("is pulled by the kernel", recv(fd, answer, sizeof answer, 0) == 24 && answer[0] == ENDED && answer[1] == 7 && answer[2] == 0);
    close(fd);
    /* As when the peer has no descriptor left. */
    struct rlimit limit, few = {5, 0};
    *word += 1;
    fd = greeted(peer, cell, word, incarnation);
    REQUIRE("the peer's limit", prlimit(peer->pid, RLIMIT_NOFILE, NULL, &limit) == 0);
    few.rlim_max = limit.rlim_max;
    REQUIRE("is lowered", prlimit(peer->pid, RLIMIT_NOFILE, &few, NULL) == 0);
    CHECK("a descriptor for one who has no room for it", send_beside(fd, share, sizeof share, fd) && send_beside(fd, ring_, sizeof ring_, fd));
    CHECK("and a request", send(fd, from_it, sizeof from_it, MSG_NOSIGNAL) == sizeof from_it);
    CHECK("which is pulled", recv(fd, answer, sizeof answer, 0) == 24 && answer[0] == ENDED && answer[1] == 7 && answer[2] == 0);
    REQUIRE("and raised", prlimit(peer->pid, RLIMIT_NOFILE, &limit, NULL) == 0);
    close(fd);
    shrinks(peer, cell, word, incarnation, mine);
    *word += 1;
    fd = greeted(peer, cell, word, incarnation);
    floods(peer, target, fd);
    close(fd);
    /* Answers that nobody reads must not pile up. */
    fd = greeted(peer, cell, word, incarnation);
    uint64_t many[1 + 5 * 128] = {WRITES};
    for (size_t i = 0; i < 128; i++) memcpy(many + 1 + 5 * i, (uint64_t[]){i, (uintptr_t)mine, peer->base, 64, 0}, 40);
    size_t taken = 0;
    int64_t end = now_ms() + 500;
    while (now_ms() < end) taken += send(fd, many, sizeof many, MSG_NOSIGNAL | MSG_DONTWAIT) > 0;
    int64_t kib = 0;
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%d/status", peer->pid);
    FILE *status = fopen(path, "r");
    while (status != NULL && fgets(line, sizeof line, status) != NULL)
        if (strncmp(line, "RssAnon:", 8) == 0) kib = strtoll(line + 8, NULL, 10);
    if (status != NULL) fclose(status);
    printf("note  %zu messages were taken without an answer read; the peer has %lld KiB\n", taken, (long long)kib);
    CHECK("nobody reads the answers, and the peer's memory does not grow with that", kib > 0 && kib < 64 * 1024);
    close(fd);
    munmap(mine, BYTES);
}

/* The peer's incarnation, from its handshake port: the name in its socket's name is the same. */
static void incarnation_of(const peer_t *peer, char out[33]) {
    int fd = socket_of(peer);
    struct sockaddr_un name = {0};
    socklen_t len = sizeof name;
    if (getpeername(fd, (struct sockaddr *)&name, &len) != 0) harness_give_up("the peer's name");
    snprintf(out, 33, "%.32s", name.sun_path + 1 + strlen("mte-shm-"));
    close(fd);
}

#endif
