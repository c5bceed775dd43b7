// Inserts the keys of each line into an unordered_map and prints them as it is walked. A key begins with '='.
#include <iostream>
#include <sstream>
#include <string>
#include <unordered_map>

int main() {
    std::string line;
    while (std::getline(std::cin, line)) {
        std::unordered_map<std::string, int> map;
        std::istringstream keys(line);
        for (std::string key; keys >> key;) map[key.substr(1)] = 0;
        for (const auto &entry : map) std::cout << '=' << entry.first << ' ';
        std::cout << '\n';
    }
}
