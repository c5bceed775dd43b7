/* The C header after the C++ one, whose names its macros must not change; and the C functions beside the members. */

#include "transfer_engine.h"
#include "transfer_engine_c.h"

#include "support.h"

using namespace mooncake;

TEST(BesideC, NamesStayApart) {
    static_assert(INVALID_BATCH_ID == INVALID_BATCH, "one value, two names");
    static_assert(LOCAL_SEGMENT_ID == LOCAL_SEGMENT, "one value, two names");
    static_assert(TransferStatusEnum::COMPLETED == STATUS_COMPLETED && TransferStatusEnum::FAILED == STATUS_FAILED, "as C");
    static_assert(TransferRequest::READ == OPCODE_READ && TransferRequest::WRITE == OPCODE_WRITE, "as C");
    static_assert(std::is_same_v<Transport::SegmentID, uint64_t> && std::is_same_v<TransferMetadata::SegmentID, uint64_t>, "64 bits");
    static_assert(static_cast<int>(Status::Code::kNotImplemented) == 999, "as programs know it");
    static_assert(std::is_nothrow_move_constructible_v<TransferEngine> && !std::is_copy_constructible_v<TransferEngine>, "one owner");
    Node node;
    char address[64];
    ASSERT_EQ(::getLocalIpAndPort(node.engine.handle(), address, sizeof address), 0);
    EXPECT_EQ(node.engine.getLocalIpAndPort(), address);
    EXPECT_EQ(::getRpcPort(node.engine.handle()), node.engine.getRpcPort());
    ::batch_id_t batch = ::allocateBatchID(node.engine.handle(), 1);
    EXPECT_TRUE(node.engine.freeBatchID(batch).ok());
}
