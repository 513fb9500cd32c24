// Memory aligned to cache lines, which neither std::vector nor new provides.
#pragma once

#include <cstdlib>
#include <new>
#include <utility>

namespace maskmill {

template <class T>
class Buffer {
public:
    Buffer() = default;
    explicit Buffer(size_t count) { reserve(count); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    Buffer(Buffer&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~Buffer() { std::free(data_); }

    // Provides at least `count` elements; growing discards the content.
    T* reserve(size_t count) {
        if (count > size_) {
            std::free(data_);
            data_ = nullptr;
            size_ = 0;
            const size_t bytes = (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
            data_ = static_cast<T*>(std::aligned_alloc(kAlignment, bytes));
            if (data_ == nullptr) throw std::bad_alloc();
            size_ = count;
        }
        return data_;
    }
    T* data() { return data_; }
    const T* data() const { return data_; }
    size_t size() const { return size_; }

private:
    static constexpr size_t kAlignment = 64;
    T* data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace maskmill
