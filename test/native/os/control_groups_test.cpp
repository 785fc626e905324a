#include "check.h"
#include "model/files.h"
#include "os/linux/control_groups.h"

using namespace longview;
using namespace longview::os;

namespace {

void put(const files::Scratch& scratch, const std::string& group, const std::string& most, const std::string& current, const std::string& stat) {
  std::filesystem::create_directories(scratch.path(group));
  files::write(scratch.path(group + "/memory.max"), most);
  files::write(scratch.path(group + "/memory.current"), current);
  files::write(scratch.path(group + "/memory.stat"), stat);
}

}  // namespace

TEST("the least room of a group and those above counts, without what files hold") {
  const files::Scratch scratch;
  put(scratch, "pod", "1000000\n", "400000\n", "anon 5\ninactive_file 100000\nactive_file 50000\n");
  put(scratch, "pod/inner", "max\n", "300000\n", "inactive_file 7\n");
  put(scratch, "pod/inner/tight", "310000\n", "300000\n", "anon 300000\n");
  const std::string root = scratch.path();
  CHECK(room_in_groups(root, "0::/pod\n") == 750000);
  CHECK(room_in_groups(root, "0::/pod/inner\n") == 750000);
  CHECK(room_in_groups(root, "4:memory:/other\n0::/pod/inner/tight\n") == 10000);
  CHECK(room_in_groups(root, "0::/pod/gone\n") == 750000);
  put(scratch, "pod/inner/tight", "200000\n", "300000\n", "");
  CHECK(room_in_groups(root, "0::/pod/inner/tight\n") == 1);
}

TEST("no group, no limit") {
  const files::Scratch scratch;
  CHECK(room_in_groups(scratch.path(), "0::/\n") == kNoLimit);
  CHECK(room_in_groups(scratch.path("missing"), "") == kNoLimit);
  put(scratch, ".", "1000\n", "600\n", "inactive_file 700\n");  // a container sees its own group as the root
  CHECK(room_in_groups(scratch.path(), "0::/\n") == 1000);
}

TEST_MAIN()
