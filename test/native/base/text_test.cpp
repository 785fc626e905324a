#include "base/text.h"

#include "check.h"

using namespace longview;

TEST("UTF-8 characters have their length and broken ones none") {
  CHECK(utf8_length("a") == 1);
  CHECK(utf8_length("é") == 2);
  CHECK(utf8_length("寿司") == 3);
  CHECK(utf8_length("🍣") == 4);
  CHECK(utf8_length("") == 0);
  CHECK(utf8_length("\x80") == 0);
  CHECK(utf8_length("\xc0\x80") == 0);          // overlong
  CHECK(utf8_length("\xe0\x9f\xbf") == 0);      // overlong
  CHECK(utf8_length("\xed\xa0\x80") == 0);      // a surrogate
  CHECK(utf8_length("\xf0\x8f\xbf\xbf") == 0);  // overlong
  CHECK(utf8_length("\xf4\x90\x80\x80") == 0);  // above U+10FFFF
  CHECK(utf8_length("\xf4\x8f\xbf\xbf") == 4);
  CHECK(utf8_length("\xe5\xaf") == 0);  // cut off
  CHECK(utf8_length("\xe5z\xbf") == 0);
}

TEST("text from files is made printable and short") {
  CHECK(printable("blk.0.attn_q") == "blk.0.attn_q");
  CHECK(printable(std::string_view("a\n\0b\x7f\xff", 6)) == "a??b??");
  CHECK(printable("寿司") == "寿司");
  CHECK(printable(std::string(200, 'x'), 10) == "xxxxxxxxxx…");
  CHECK(printable("寿司寿司", 4) == "寿司…");
  CHECK(printable("") == "");
}

TEST("sizes read as people write them") {
  CHECK(human_size(0) == "0 bytes");
  CHECK(human_size(999) == "999 bytes");
  CHECK(human_size(1000) == "1.0 kB");
  CHECK(human_size(94'380'704) == "94.4 MB");
  CHECK(human_size(999'960'000) == "1.0 GB");
  CHECK(human_size(17'106'773'984) == "17.1 GB");
  CHECK(human_size(INT64_MAX) == "9.2 EB");
}

TEST_MAIN()
