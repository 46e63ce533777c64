// SPDX-License-Identifier: Apache-2.0
#include "tls/transport.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

#include "crypto/ossl.h"
#include "loop/fd.h"

namespace sally::tls {
namespace {

class SocketTest : public testing::Test {
 protected:
  SocketTest() {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    ours_ = loop::Fd(fds[0]);
    theirs_ = loop::Fd(fds[1]);
    socket_ = std::make_unique<Socket>(ours_.get());
    bio_.reset(socket_bio(*socket_));
  }
  bool write(const Bytes& bytes) {
    std::size_t n = 0;
    return BIO_write_ex(bio_.get(), bytes.data(), bytes.size(), &n) == 1 && n == bytes.size();
  }
  Bytes arrived() {
    Bytes out;
    std::array<std::uint8_t, 4096> piece;
    for (ssize_t n = 0; (n = ::read(theirs_.get(), piece.data(), piece.size())) > 0;)
      append(out, ByteView(piece).first(static_cast<std::size_t>(n)));
    return out;
  }

  loop::Fd ours_;
  loop::Fd theirs_;
  std::unique_ptr<Socket> socket_;
  crypto::Ossl<BIO, BIO_free_all> bio_;
};

TEST_F(SocketTest, GatheredRecordsLeaveTogetherAndInOrder) {
  ASSERT_TRUE(write(Bytes(10, 'a')));
  EXPECT_EQ(arrived().size(), 10U);
  socket_->gather(true);
  ASSERT_TRUE(write(Bytes(10, 'b')));
  ASSERT_TRUE(write(Bytes(10, 'c')));
  EXPECT_TRUE(arrived().empty());
  EXPECT_EQ(socket_->flush(), 1);
  EXPECT_EQ(to_text(arrived()), "bbbbbbbbbbcccccccccc");
  EXPECT_EQ(socket_->flush(), 1);
  EXPECT_TRUE(arrived().empty());
  // What is not gathered never passes what is.
  ASSERT_TRUE(write(Bytes(1, 'd')));
  socket_->gather(false);
  ASSERT_TRUE(write(Bytes(1, 'e')));
  EXPECT_EQ(to_text(arrived()), "de");
}

TEST_F(SocketTest, FullBatchesLeaveByThemselvesAndASocketThatIsFullLosesNothing) {
  socket_->gather(true);
  Bytes sent;
  const auto next = [&] { return Bytes(16'000, static_cast<std::uint8_t>(sent.size() / 16'000)); };
  while (write(next())) append(sent, next());
  EXPECT_TRUE(BIO_should_retry(bio_.get()));
  EXPECT_GT(sent.size(), Socket::kBatch);
  EXPECT_EQ(socket_->flush(), 0);
  Bytes got = arrived();
  for (int left = socket_->flush(); left == 0; left = socket_->flush()) append(got, arrived());
  append(got, arrived());
  EXPECT_EQ(got, sent);
  EXPECT_TRUE(write(next()));
}

TEST_F(SocketTest, ABrokenSocketIsAnErrorAtTheFlush) {
  socket_->gather(true);
  ASSERT_TRUE(write(Bytes(10, 'a')));
  theirs_.reset();
  EXPECT_EQ(socket_->flush(), -1);
  EXPECT_EQ(errno, EPIPE);
}

TEST_F(SocketTest, TheEndIsTold) {
  std::array<char, 16> piece;
  std::size_t n = 0;
  EXPECT_EQ(BIO_read_ex(bio_.get(), piece.data(), piece.size(), &n), 0);
  EXPECT_TRUE(BIO_should_retry(bio_.get()));
  theirs_.reset();
  EXPECT_EQ(BIO_read_ex(bio_.get(), piece.data(), piece.size(), &n), 0);
  EXPECT_FALSE(BIO_should_retry(bio_.get()));
  EXPECT_EQ(BIO_eof(bio_.get()), 1);
}

}  // namespace
}  // namespace sally::tls
