// The section reader against a library that the compiler made, then against the same bytes damaged.
#include <elf.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "core/plugin/elf_section.h"

namespace attnmux {
namespace {

constexpr char kName[] = ".attnmux.abi";
constexpr char kPayload[] = "payload of the section";

// A minimal file: header, payload, name table, section table with the null, payload and name sections.
struct Image {
  Elf64_Ehdr header{};
  std::string names = std::string("\0.attnmux.abi\0.shstrtab\0", 24);
  std::vector<Elf64_Shdr> sections = std::vector<Elf64_Shdr>(3);

  Image() {
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_type = ET_DYN;
#if defined(__aarch64__)
    header.e_machine = EM_AARCH64;
#else
    header.e_machine = EM_X86_64;
#endif
    header.e_shentsize = sizeof(Elf64_Shdr);
    header.e_shnum = 3;
    header.e_shstrndx = 2;
    sections[1].sh_name = 1;
    sections[1].sh_type = SHT_PROGBITS;
    sections[1].sh_offset = sizeof header;
    sections[1].sh_size = sizeof kPayload;
    sections[2].sh_name = 14;
    sections[2].sh_type = SHT_STRTAB;
    sections[2].sh_offset = sizeof header + sizeof kPayload;
    sections[2].sh_size = names.size();
    header.e_shoff = sizeof header + sizeof kPayload + names.size();
  }

  std::string bytes() const {
    std::string file(reinterpret_cast<const char*>(&header), sizeof header);
    file.append(kPayload, sizeof kPayload);
    file += names;
    file.append(reinterpret_cast<const char*>(sections.data()), sections.size() * sizeof(Elf64_Shdr));
    return file;
  }
};

// Counts what is asked outside the file: the reader must check before it reads.
ElfSection read(const std::string& file, size_t max_size = 4096) {
  const ReadAt read_at = [&](uint64_t offset, void* to, size_t size) {
    EXPECT_NE(to, nullptr);
    EXPECT_LE(offset, file.size());
    EXPECT_LE(size, file.size() - std::min<uint64_t>(offset, file.size()));
    std::memcpy(to, file.data() + offset, size);
    return true;
  };
  return read_elf_section(file.size(), read_at, kName, max_size);
}

TEST(ElfSection, FindsTheSection) {
  const ElfSection found = read(Image().bytes());
  ASSERT_EQ(found.status, ElfStatus::kFound) << found.problem;
  ASSERT_EQ(found.bytes.size(), sizeof kPayload);
  EXPECT_EQ(std::memcmp(found.bytes.data(), kPayload, sizeof kPayload), 0);
}

// Found by the fuzzer: an empty section was read into no memory.
TEST(ElfSection, AnEmptySectionIsFoundEmpty) {
  Image image;
  image.sections[1].sh_size = 0;
  const ElfSection found = read(image.bytes());
  EXPECT_EQ(found.status, ElfStatus::kFound) << found.problem;
  EXPECT_TRUE(found.bytes.empty());
}

TEST(ElfSection, NoPrefixOfAFileIsTakenForAWholeOne) {
  const std::string whole = Image().bytes();
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(read(whole.substr(0, size)).status, ElfStatus::kNotElf) << "first " << size << " bytes";
  }
}

TEST(ElfSection, EveryByteMayBeWrong) {
  const std::string whole = Image().bytes();
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const int value : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
      std::string file = whole;
      file[at] = static_cast<char>(value);
      const ElfSection result = read(file);
      EXPECT_EQ(result.status == ElfStatus::kFound, result.problem.empty()) << "byte " << at;
    }
  }
}

// A text is shorter than an ELF header, too.
TEST(ElfSection, AShortTextIsNoElf) {
  for (const char* text : {"", "hello\n"}) {
    const ElfSection result = read(text);
    EXPECT_EQ(result.status, ElfStatus::kNotElf);
    EXPECT_NE(result.problem.find("does not begin with the ELF magic"), std::string::npos) << result.problem;
  }
}

TEST(ElfSection, AFailingReadIsReported) {
  const ElfSection result = read_elf_section(
      1 << 20, [](uint64_t, void*, size_t) { return false; }, kName, 4096);
  EXPECT_EQ(result.status, ElfStatus::kNotElf);
}

struct Damage {
  const char* name;
  void (*apply)(Image& image);
  ElfStatus status;
  const char* text;  // part of the message
};

void PrintTo(const Damage& damage, std::ostream* out) { *out << damage.name; }

class DamagedElf : public testing::TestWithParam<Damage> {};

TEST_P(DamagedElf, IsNamed) {
  Image image;
  GetParam().apply(image);
  const ElfSection result = read(image.bytes());
  EXPECT_EQ(result.status, GetParam().status);
  EXPECT_NE(result.problem.find(GetParam().text), std::string::npos) << result.problem;
}

constexpr uint64_t kHuge = ~uint64_t{0} - 7;

INSTANTIATE_TEST_SUITE_P(
    Cases, DamagedElf,
    testing::Values(
        Damage{"magic", [](Image& i) { i.header.e_ident[1] = 'X'; }, ElfStatus::kNotElf, "magic"},
        Damage{"class32", [](Image& i) { i.header.e_ident[EI_CLASS] = ELFCLASS32; }, ElfStatus::kNotElf, "64-bit"},
        Damage{"big_endian", [](Image& i) { i.header.e_ident[EI_DATA] = ELFDATA2MSB; }, ElfStatus::kNotElf, "little"},
        Damage{"program", [](Image& i) { i.header.e_type = ET_EXEC; }, ElfStatus::kNotElf, "ELF type 2"},
        Damage{"machine", [](Image& i) { i.header.e_machine = EM_S390; }, ElfStatus::kNotElf, "machine 22"},
        Damage{"entry_size", [](Image& i) { i.header.e_shentsize = 63; }, ElfStatus::kNotElf, "63 bytes"},
        Damage{"no_sections", [](Image& i) { i.header.e_shnum = 0; }, ElfStatus::kNotElf, "section table"},
        Damage{"many_sections", [](Image& i) { i.header.e_shnum = 0xffff; }, ElfStatus::kNotElf, "section table"},
        Damage{"table_offset_wraps", [](Image& i) { i.header.e_shoff = kHuge; }, ElfStatus::kNotElf, "section table"},
        Damage{"name_index", [](Image& i) { i.header.e_shstrndx = 3; }, ElfStatus::kNotElf, "section 3 of 3"},
        Damage{"names_wrap", [](Image& i) { i.sections[2].sh_offset = kHuge; }, ElfStatus::kNotElf, "name table"},
        Damage{"names_huge", [](Image& i) { i.sections[2].sh_size = kHuge; }, ElfStatus::kNotElf, "name table"},
        Damage{"name_outside", [](Image& i) { i.sections[1].sh_name = 0xffffffff; }, ElfStatus::kNoSection, kName},
        Damage{"name_longer", [](Image& i) { i.names[13] = 'x'; }, ElfStatus::kNoSection, kName},
        Damage{"section_wraps", [](Image& i) { i.sections[1].sh_offset = kHuge; }, ElfStatus::kDamagedSection, kName},
        Damage{"section_huge", [](Image& i) { i.sections[1].sh_size = kHuge; }, ElfStatus::kDamagedSection, kName},
        Damage{"section_5000", [](Image& i) { i.sections[1].sh_size = 5000; }, ElfStatus::kDamagedSection, "5000"},
        Damage{"no_bits", [](Image& i) { i.sections[1].sh_type = SHT_NOBITS; }, ElfStatus::kDamagedSection, kName}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace attnmux
