/* Part of shm.c: short messages through memory, from our engine and by hand. */
#ifndef SHM_RINGS_H
#define SHM_RINGS_H

/* Where things are in a page, in numbers (src/transport/shm/ring.rs). */
enum { VALID, AWAKE = 8, TAKEN = 16, FIRST = 24, SLOT = 8, SLOTS = 64, PAGE_BYTES = 8192 };

/* A connection made by hand, with its page and the peer's. */
typedef struct {
    int fd;
    _Atomic uint64_t *ours;
    const _Atomic uint64_t *theirs;
    uint64_t sent, taken;
} ring_t;

/* A page that may be mapped by others. */
static int page_file(_Atomic uint64_t **page) {
    int file = memfd_create("page", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (ftruncate(file, PAGE_BYTES) != 0 || fallocate(file, 0, 0, PAGE_BYTES) != 0) harness_give_up("a page");
    *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    /* F_SEAL_FUTURE_WRITE */
    if (*page == MAP_FAILED || fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | 0x10) != 0) harness_give_up("a sealed page");
    return file;
}

/* Receives a message with a descriptor beside it. */
static int receive_beside(int fd, void *message, size_t len) {
    char room[CMSG_SPACE(sizeof(int))];
    struct iovec piece = {message, len};
    struct msghdr all = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    int passed = -1;
    if (recvmsg(fd, &all, 0) > 0 && CMSG_FIRSTHDR(&all) != NULL) memcpy(&passed, CMSG_DATA(CMSG_FIRSTHDR(&all)), sizeof passed);
    return passed;
}

static ring_t ring_open(const peer_t *peer, uint64_t *cell, uint64_t *word, const char *incarnation) {
    *word += 1;
    ring_t ring = {.fd = greeted(peer, cell, word, incarnation)};
    int file = page_file(&ring.ours);
    ring.ours[VALID] = *word;
    uint64_t offer[] = {RING, PAGE_BYTES}, answer[4] = {0};
    CHECK("a page is offered", send_beside(ring.fd, offer, sizeof offer, file));
    int passed = receive_beside(ring.fd, answer, sizeof answer);
    CHECK("and answered with one", passed >= 0 && answer[0] == RING && answer[1] == PAGE_BYTES);
    ring.theirs = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, passed, 0);
    CHECK("which can be mapped", ring.theirs != MAP_FAILED);
    CHECK("and not be written", mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, passed, 0) == MAP_FAILED);
    close(file);
    close(passed);
    return ring;
}

static void ring_close(ring_t *ring) {
    munmap((void *)(uintptr_t)ring->ours, PAGE_BYTES);
    munmap((void *)(uintptr_t)ring->theirs, PAGE_BYTES);
    close(ring->fd);
}

static void ring_put(ring_t *ring, const uint64_t message[6]) {
    _Atomic uint64_t *slot = ring->ours + FIRST + ring->sent % SLOTS * SLOT;
    for (size_t i = 0; i < 6; i++) slot[i] = message[i];
    slot[SLOT - 1] = ++ring->sent;
}

/* The next message of the peer in the ring. */
static bool ring_take(ring_t *ring, uint64_t message[3]) {
    const _Atomic uint64_t *slot = ring->theirs + FIRST + ring->taken % SLOTS * SLOT;
    if (slot[SLOT - 1] != ring->taken + 1) return false;
    for (size_t i = 0; i < 3; i++) message[i] = slot[i];
    ring->ours[TAKEN] = ++ring->taken;
    return true;
}

/* How many messages this process has put into a ring, by its own pages. */
static uint64_t put_so_far(void) {
    char line[512];
    uint64_t most = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
        unsigned long first = 0;
        if (strstr(line, "memfd:mte-own") == NULL || strstr(line, "rw-s") == NULL || sscanf(line, "%lx", &first) != 1) continue;
        const _Atomic uint64_t *page = (const _Atomic uint64_t *)first;
        for (size_t i = 0; i < SLOTS; i++)
            if (page[FIRST + i * SLOT + SLOT - 1] > most) most = page[FIRST + i * SLOT + SLOT - 1];
    }
    if (maps != NULL) fclose(maps);
    return most;
}

static void rings(const peer_t *peer, segment_id_t target, const char *incarnation) {
    uint64_t cell[3] = {21, 22, 23}, *word = &cell[2], wake[] = {WAKE, 0}, answer[16] = {0};
    unsigned char *mine = map_bytes(BYTES);
    memset(mine, 0x55, BYTES);
    bool came;

    /* Our own engine, whose peer looks for more after each request. */
    int wrong_bytes = 0;
    for (int64_t end = now_ms() + END_MS; now_ms() < end && put_so_far() < 200;) {
        for (uint64_t i = 0; i < 200; i++) {
            pattern_fill(bytes, 4096, i);
            int status = transfer_once(engine, request(OPCODE_WRITE, bytes, target, peer->base, 4096), END_MS);
            wrong_bytes += status != STATUS_COMPLETED || !pattern_matches(peer->view, 4096, i);
        }
    }
    CHECK_EQ("small WRITEs that have not arrived when they are COMPLETED", wrong_bytes, 0);
    CHECK("they are told of without system calls", put_so_far() >= 200);

    ring_t ring = ring_open(peer, cell, word, incarnation);
    ring_put(&ring, (uint64_t[6]){WRITES, 1, (uintptr_t)mine, peer->base, 4096, 0});
    CHECK("a request in the ring is told of", send(ring.fd, wake, sizeof wake, MSG_NOSIGNAL) == sizeof wake);
    CHECK("who sleeps is answered in the socket", recv(ring.fd, answer, sizeof answer, 0) == 24 && answer[0] == ENDED && answer[1] == 1 && answer[2] == 0);
    CHECK("and the bytes are there", all_bytes(peer->view, 4096, 0x55));
    ring.ours[AWAKE] = 1;
    memset(mine, 0x66, BYTES);
    ring_put(&ring, (uint64_t[6]){WRITES, 2, (uintptr_t)mine, peer->base, 4096, 0});
    send(ring.fd, wake, sizeof wake, MSG_NOSIGNAL);
    WAIT_UNTIL(came, ring_take(&ring, answer), END_MS);
    CHECK("who is awake finds the answer in the ring", came && answer[0] == ENDED && answer[1] == 2 && answer[2] == 0 && all_bytes(peer->view, 4096, 0x66));
    /* One who was awake and does not look any more. */
    ring_put(&ring, (uint64_t[6]){WRITES, 3, (uintptr_t)mine, peer->base, 4096, 0});
    send(ring.fd, wake, sizeof wake, MSG_NOSIGNAL);
    CHECK("answers that are left there are told of", recv(ring.fd, answer, sizeof answer, 0) == 16 && answer[0] == WAKE);
    CHECK("and are there", ring_take(&ring, answer) && answer[1] == 3 && answer[2] == 0);
    /* What is taken back before the peer has seen it: the order of ring and socket. */
    ring.ours[AWAKE] = 0;
    bool once = true;
    for (uint64_t tag = 10; tag < 60; tag++) {
        uint64_t withdraw[] = {WITHDRAW, tag};
        ring_put(&ring, (uint64_t[6]){WRITES, tag, (uintptr_t)mine, peer->base, 4096, 0});
        send(ring.fd, withdraw, sizeof withdraw, MSG_NOSIGNAL);
        once = once && recv(ring.fd, answer, sizeof answer, 0) == 24 && answer[1] == tag && (answer[2] == 0 || answer[2] == 4);
    }
    CHECK("each request that is taken back is answered once", once && recv(ring.fd, answer, sizeof answer, MSG_DONTWAIT) < 0);
    ring_close(&ring);

    /* Given up a moment after the peer was asked who it is: by its page, without another question. */
    int not_pulled = 0;
    for (int i = 0; i < 5; i++) {
        ring = ring_open(peer, cell, word, incarnation);
        uint64_t first[6] = {WRITES, 1, (uintptr_t)mine, peer->base, 4096, 0}, second[6] = {WRITES, 2, (uintptr_t)mine + 4096, peer->base, 4096, 0};
        memset(mine, 0x66, 4096);
        memset(mine + 4096, 0x33, 4096);
        ring_put(&ring, first);
        send(ring.fd, wake, sizeof wake, MSG_NOSIGNAL);
        bool pulled = recv(ring.fd, answer, sizeof answer, 0) == 24 && answer[1] == 1 && answer[2] == 0;
        ring.ours[VALID] = 0;
        *word += 1;
        ring_put(&ring, second);
        send(ring.fd, wake, sizeof wake, MSG_NOSIGNAL);
        not_pulled += pulled && recv(ring.fd, answer, sizeof answer, 0) == 24 && answer[1] == 2 && answer[2] == 4 && all_bytes(peer->view, 4096, 0x66);
        ring_close(&ring);
    }
    CHECK_EQ("a request of a connection that was given up is not pulled", not_pulled, 5);

    /* Nonsense in the ring, and too many rings. */
    static const uint64_t wrong[][6] = {{ENDED, 1, 0, 0, 0, 0}, {0, 1, 1, 1, 1, 1}, {UINT64_MAX, 1, 1, 1, 1, 1}, {WRITES, 1, 1, 1, 0, 0}, {WRITES, 1, 1, 1, UINT64_MAX, 0}};
    for (size_t i = 0; i < COUNT(wrong); i++) {
        ring = ring_open(peer, cell, word, incarnation);
        ring_put(&ring, wrong[i]);
        send(ring.fd, wake, sizeof wake, MSG_NOSIGNAL);
        CHECK("nonsense in the ring ends the connection", ends(ring.fd));
        ring_close(&ring);
    }
    ring = ring_open(peer, cell, word, incarnation);
    _Atomic uint64_t *page;
    int file = page_file(&page);
    uint64_t offer[] = {RING, PAGE_BYTES};
    CHECK("a second page", send_beside(ring.fd, offer, sizeof offer, file) && ends(ring.fd));
    close(file);
    ring_close(&ring);
    for (int kind = 0; kind < 6; kind++) {
        *word += 1;
        int fd = greeted(peer, cell, word, incarnation);
        file = unsound(kind, fd);
        uint64_t unfit[] = {RING, kind % 2 ? BYTES : PAGE_BYTES};
        uint64_t write_[] = {WRITES, 8, (uintptr_t)mine, peer->base, 4096, 0};
        CHECK("a page that is none", send_beside(fd, unfit, sizeof unfit, file) && send(fd, write_, sizeof write_, MSG_NOSIGNAL) == sizeof write_);
        CHECK("is not used", recv(fd, answer, sizeof answer, 0) == 24 && answer[0] == ENDED && answer[1] == 8 && answer[2] == 0);
        close(file);
        close(fd);
    }
    /* One who never stops writing into the ring. */
    ring = ring_open(peer, cell, word, incarnation);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
            ring_put(&ring, (uint64_t[6]){WRITES, 1, 8, 8, 8, 0});
            if (ring.sent % 1024 == 0) send(ring.fd, wake, sizeof wake, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
    }
    int done = 0;
    for (int i = 0; i < 20; i++)
        done += transfer_once(engine, request(OPCODE_WRITE, bytes, target, peer->base, 4096), END_MS) == STATUS_COMPLETED;
    CHECK_EQ("WRITEs beside one who never stops", done, 20);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    ring_close(&ring);
    munmap(mine, BYTES);
}

#endif
